"""The demo model's tokenizer: byte-level BPE trained on a few sentences, with a chat template."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from moe_serve.demo_config import END_ID, PAD_ID

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = """
 Every token that enters the model meets a small gate, and the gate decides which experts will
 read it. Some experts know the names of rivers and mountains, others have learned how to count,
 how to rhyme, or how old stories end. None of them sees the whole text; each one adds a little,
 and the sum of what they say becomes the next word. When many people ask questions at once, the
 engine gathers their words into one batch, sends each word to the machine where its expert
 lives, and brings the answers back before anyone has time to wonder. One machine may be fast and
 another slow, one large and another small, yet together they carry a load that none could carry
 alone. A good plan puts the busy experts close to the strong machines, and lets the quiet ones
 sleep in cheaper rooms. If a machine fails in the night, its work moves to a neighbour, and the
 reader never hears of it. That is the idea behind this house: simple floors, clear doors, honest
 numbers, and a light left on for whoever comes home late. This demo speaks only random words,
 because nobody has taught it anything yet; its weights were drawn by chance. Give it a real
 model, and it will give you real sentences. Until then, please enjoy the sound of the sea, the
 green hills, warm bread, red apples, blue birds, old books, long roads, bright stars, cold
 water, soft rain, early trains, and a cup of tea in the garden after a long and winding day.
"""


def make_tokenizer() -> Tokenizer:
    """Any text has tokens, as bytes at worst; each word of the text above is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(TEXT.split())], trainer)
    return tokenizer


def find_word_ids(tokenizer: Tokenizer) -> list[int]:
    """The tokens that are whole words with a space before them, or punctuation."""
    words = {f" {word.strip('.,;:')}" for word in TEXT.split()} | {".", ","}
    encodings = tokenizer.encode_batch(sorted(words))
    return sorted(encoding.ids[0] for encoding in encodings if len(encoding.ids) == 1)


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
    tokenizer.save(str(directory / "tokenizer.json"))
    description = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": SPECIAL_TOKENS[END_ID],
        "pad_token": SPECIAL_TOKENS[PAD_ID],
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(description, indent=1))
