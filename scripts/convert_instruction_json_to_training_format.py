"""VideoInstruct rows to the JSON that Video-ChatGPT trains on; the same as `videomind convert`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from videomind.video_chatgpt.convert import main

if __name__ == "__main__":
    sys.exit(main())
