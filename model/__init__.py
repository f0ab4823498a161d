"""The two backbones: LLaVA-1.5 through transformers, SAM through segment-anything."""
