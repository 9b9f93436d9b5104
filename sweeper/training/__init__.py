"""What runs inside a trial. Importing this package loads no torch; its modules do where they need it."""
