"""CLIP spatio-temporal features of a folder of videos; the same as `videomind features`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from videomind.video_chatgpt.features.extract import main

if __name__ == "__main__":
    sys.exit(main())
