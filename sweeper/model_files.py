"""Names of the files in a model's directory, as transformers and peft write them. Pure."""

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = f"{SAFETENSORS}.index.json"  # of one that is cut into several files
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = f"{PICKLE}.index.json"
ADAPTERS = "adapter_config.json"  # a directory that holds one has adapters, not a whole model
