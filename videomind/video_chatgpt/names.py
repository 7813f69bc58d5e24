"""What a command line of Video-ChatGPT names: projectors, towers, conversations."""

LINEAR, MLP = PROJECTORS = ("linear", "mlp2x_gelu")
CLIP = "openai/clip-vit-large-patch14"  # the tower at 224 pixels
CLIP_336 = f"{CLIP}-336"
TOWER_BATCH = 32  # frames per forward pass
TRAINING_MODE, CHAT_MODE = "vicuna_v1_1", "video-chatgpt_v1"
# The texts that the published models were trained and evaluated with; the second has no blank after
# "language.", as published.
SYSTEMS = {
    TRAINING_MODE: "A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the user's questions.",
    CHAT_MODE: "You are Video-ChatGPT, a large vision-language assistant. You are able to understand the "
    "video content that the user provides, and assist the user with a variety of tasks using natural "
    "language.Follow the instructions carefully and explain your answers in detail based on the provided "
    "video.",
}
