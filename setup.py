"""Installs the `videomind` package and its command."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="videomind",
    version="0.1.0",
    description="Training and evaluation of temporal-grounding video-language agents",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["videomind", "videomind.*"]),
    package_data={"videomind": ["prompts.json"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "transformers>=5.17,<6",
        "accelerate>=1.10",
        "peft>=0.19",
        "av>=17.1",
        "numpy>=1.26",
        "pyarrow>=18",
        "filelock>=3.12",
        "pillow>=10",
        "safetensors>=0.5",
        "tensorboard>=2.16",
        "tabulate>=0.9",
        "tqdm>=4.66",
        "protobuf>=4.25",
    ],
    extras_require={
        "deepspeed": ["deepspeed>=0.18", "ninja>=1.11"],
        "decord": ["decord>=0.6"],
        "torchcodec": ["torchcodec>=0.10"],
        "flash": ["flash-attn>=2.7"],
        "npu": ["torch-npu>=2.11"],
        "demo": ["gradio>=5"],
        # The reference that the head is compared with; its setup.py fails from Python 3.13 on.
        "nncore": ['nncore>=0.4.7; python_version < "3.13"'],
        "dev": ["pytest>=8", "pytest-xdist>=3", "ruff>=0.14", "pre-commit>=4", "deepspeed>=0.18"],
    },
    entry_points={"console_scripts": ["videomind=videomind.cli:main"]},
)
