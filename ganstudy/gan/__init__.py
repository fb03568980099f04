"""Training one GAN: losses, regularisers, stabilisers, networks, data and the trainer.

Nothing in here knows of Ray, Optuna, MLflow or files; the trainer yields signals, others listen.
"""
