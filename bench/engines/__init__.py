"""The engine benchmark: how fast a shape or a model runs in every engine, without its accuracy."""
