"""One scorer per file; `videomind.eval.scorer` finds them by their names."""
