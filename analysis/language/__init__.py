"""What any language model is held against: predictors without gradients."""
