"""Tiny models that give one of a few fixed answers, with a real tokenizer."""

import json

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# One token each: a model that says one of them and stops gives a readable answer after two tokens.
SPOKEN = {
    "UP": "<think>\nup it goes\n</think>\nPrediction: UP\nExpected move: 1.0%\nConfidence: 60%",
    "DOWN": "<think>\ndown it goes\n</think>\nPrediction: DOWN\nExpected move: 1.0%\nConfidence: 70%",
}
# What the tokenizer of the tests learns from. Like our prompt, but not our prompt: when that changes, the tokens, and
# the seeds of tests that draw random models and samples from them, stay as they are.
SYSTEM = "You forecast the next trading day of a share from the data given."
QUESTION = """Will the next trading day's close be UP or DOWN? Reason in plain sentences: call each number by its name \
above, say what speaks for UP and what for DOWN, and end with the one you expect. Answer in this form:
<think>
reasoning that cites the data
</think>
Prediction: UP or DOWN
Expected move: size in percent
Confidence: 50% to 100%"""
CONSTANT, AFTER_ANSWER = 0, 1  # dimensions of the tiny model's residual stream that are set by hand


def speaking_tokenizer(spoken):
    """Qwen2's tokenizer with about 400 tokens and a ChatML template; each of the texts `spoken` is one token."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    texts = [text for i in range(20) for text in (SYSTEM, f"Company: Company {i}\nClose: ${i}\n\n{QUESTION}")]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        unk_token=None,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in spoken])
    tokenizer.chat_template = CHATML
    return tokenizer


def write_speaking_model(folder, tokenizer, spoken, width=32):
    """A random two-layer Qwen2 that says one of the texts `spoken`, each as often as another, and stops.

    One dimension of the embedding is the same for all tokens, so that its column in the output layer is a bias; another
    is set for the answers only, after which the end of the turn is certain. All else is random.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    answers = [tokenizer.convert_tokens_to_ids(text) for text in spoken]
    with torch.no_grad():
        embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding[:, CONSTANT], embedding[:, AFTER_ANSWER] = 1.0, 0.0
        embedding[answers, AFTER_ANSWER] = 1.0
        output[:, CONSTANT], output[:, AFTER_ANSWER] = -2.0, 0.0
        output[answers, CONSTANT] = 2.0
        output[tokenizer.eos_token_id, AFTER_ANSWER] = 10.0
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
