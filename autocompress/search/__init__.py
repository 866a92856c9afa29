"""The search itself: study, seeds, samplers and driver. The only room that knows Optuna."""
