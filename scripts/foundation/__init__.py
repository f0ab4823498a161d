"""Two small foundation models, trained from nothing on drawn scenes: a LLaVA that talks, a SAM that cuts out."""
