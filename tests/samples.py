"""What several tests read: the formats, and texts of unequal length."""

FORMATS = ("onnx", "ctranslate2", "gguf", "torchscript")
TEXTS = (
    "When was the uh the old bridge of Verona built?",
    "Who wrote no sorry who painted the portrait?",
    "yes",
    "How many people, I mean, how many families lived in São Paulo in 1920 and where did they go?",
)
