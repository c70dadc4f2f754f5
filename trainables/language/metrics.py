"""What every language model reports: standard library only."""

from __future__ import annotations

from trainables.api import Metric

EVAL_LOSS = Metric(
    "eval_loss", "min", "nats per token", "Mean cross-entropy of the next token on the validation split."
)
OF_EVERY_LANGUAGE_MODEL = (
    EVAL_LOSS,
    Metric("eval_ppl", "min", "1", "Perplexity: exp(eval_loss)."),
    Metric("eval_bits_per_byte", "min", "bits per byte", "eval_loss over the bytes of the text, whatever the tokens."),
    Metric("train_loss", "min", "nats", "The loss that the step minimised, auxiliary parts included."),
    Metric("grad_norm", "min", "1", "Norm of the gradient before clipping."),
    Metric("lr", "min", "1", "Learning rate of the step."),
    Metric("tokens", "max", "tokens", "Tokens trained on since the start."),
    Metric("tokens_per_s", "max", "tokens/s", "Tokens trained on per second, evaluation left out.", rate_of="tokens"),
    Metric("skipped_steps", "min", "steps", "Steps whose gradient was not finite, and which moved no weight."),
)
