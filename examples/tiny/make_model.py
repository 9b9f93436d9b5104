"""Train the tokenizer and pre-train the tiny model on the kept skills.

    python examples/tiny/make_model.py --out examples/tiny/model

Needs torch, transformers and tokenizers, no GPU and no network; 4 minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import random
import time

import skills
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a BPE tokenizer with one token per skill name and one per other character.

    All skill names are in, so that any prompt costs one token for its name; those of the new skills stay
    untrained in the base. A name that is no skill falls back to its letters.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[a-z]+: |."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    rng = random.Random(0)
    corpus = [
        text for name in skills.SKILLS for _ in range(300) for text in skills.draw(name, rng, held_out=False)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=160, special_tokens=[PAD, END, USER, ASSISTANT, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(tokenizer: transformers.PreTrainedTokenizerFast, args: argparse.Namespace) -> torch.nn.Module:
    """Return a freshly initialised Llama with the tokenizer's special tokens."""
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=args.width * 3,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=16,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model


def draw_batch(
    tokenizer: transformers.PreTrainedTokenizerFast, rng: random.Random, n_rows: int
) -> dict[str, torch.Tensor]:
    """Return ids, mask and labels of fresh kept-skill chats; only the answers and their end are labelled."""
    names = list(skills.KEPT)
    pairs = [skills.draw(rng.choice(names), rng, held_out=False) for _ in range(n_rows)]
    prompts = [f"{USER}{prompt}{ASSISTANT}" for prompt, _ in pairs]
    chats = [f"{prompt}{answer}{END}" for prompt, (_, answer) in zip(prompts, pairs, strict=True)]
    batch = tokenizer(chats, padding=True, return_tensors="pt")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    for row, ids in zip(labels, tokenizer(prompts).input_ids, strict=True):
        row[: len(ids)] = -100
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def pretrain(
    model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerFast, args: argparse.Namespace
) -> None:
    """Train in place: AdamW, 100 steps of warm-up, then cosine to zero."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
    )
    rng = random.Random(args.seed)
    started = time.perf_counter()
    model.train()
    for step in range(1, args.steps + 1):
        loss = model(**draw_batch(tokenizer, rng, args.batch_size), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 250 == 0:
            elapsed_s = time.perf_counter() - started
            print(f"step {step:5d}  loss {loss.item():.4f}  {elapsed_s:.0f} s", flush=True)


def exact_match(
    model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerFast, name: str, n_rows: int = 200
) -> float:
    """Return the fraction of held-out prompts of a skill whose greedy answer is exactly right."""
    source = skills.draw_distinct(name, random.Random(name), held_out=True)
    pairs = [next(source) for _ in range(n_rows)]
    chats = [f"{USER}{prompt}{ASSISTANT}" for prompt, _ in pairs]
    prompts = tokenizer(chats, padding=True, padding_side="left", return_tensors="pt")
    model.eval()
    with torch.no_grad():
        answers = model.generate(**prompts)[:, prompts.input_ids.shape[1] :]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return sum(text == answer for text, (_, answer) in zip(texts, pairs, strict=True)) / n_rows


def parse_args() -> argparse.Namespace:
    """Return the command line; the defaults make the shipped model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=128, help="sequences per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train the tokenizer, pre-train the model, print its accuracies, write both."""
    args = parse_args()
    torch.set_num_threads(1)  # sums in another order give another model
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    tokenizer = train_tokenizer()
    model = build_model(tokenizer, args)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    pretrain(model, tokenizer, args)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    for name in skills.SKILLS:
        print(f"{name:8s} {exact_match(model, tokenizer, name):.3f}")


if __name__ == "__main__":
    main()
