"""One row of each source, as upstream has it."""

THOUGHT = "<think>\n2 and 2 make 4.\n</think>\n\nThe answer is \\boxed{4}."
OLD_THOUGHT = (
    "<|begin_of_thought|>\n\n2 and 2 make 4.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nThe answer is \\boxed{4}.\n\n<|end_of_solution|>"
)

UPSTREAM = {
    "openthoughts": {
        "system": "Your role as an assistant involves <|begin_of_thought|> …",
        "conversations": [{"from": "user", "value": "What is 2 + 2?"}, {"from": "assistant", "value": OLD_THOUGHT}],
    },
    "openthoughts3": {
        "difficulty": 7,
        "source": "stackexchange",
        "domain": "math",
        "conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": THOUGHT}],
    },
    "dolci": {
        "id": "d-1",
        "dataset_source": "allenai/OpenThoughts3-merged",
        "messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": THOUGHT}],
    },
    "smoltalk": {
        "source": "everyday-conversations",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "What is 2 + 2?"},
            {"role": "assistant", "content": "4."},
        ],
    },
    "gsm8k": {"question": "What is 2 + 2?", "answer": "2 and 2 make <<2+2=4>>4.\n#### 4"},
    "math": {
        "problem": "What is 2 + 2?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "It is $2+2=\\boxed{4}$.",
    },
    "mmlu": {"question": "What is 2 + 2?", "subject": "astronomy", "choices": ["3", "4", "5", "6"], "answer": 1},
    "arc_easy": {
        "id": "Mercury_1",
        "question": "What is 2 + 2?",
        "choices": {"text": ["3", "4", "5"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    },
    "chat": {"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4."}]},
}
