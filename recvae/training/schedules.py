"""Learning rate and KL weight in the course of a training run."""

import math


def learning_rate_factor(schedule: str, progress: float) -> float:
    """The factor on the learning rate after a fraction `progress` of all updates.

    - "constant": 1.
    - "cosine": from 1 down to 0 along half a cosine; a steady choice when the number of epochs is fixed.
    - "exponential": from 1 down to 1/100.
    - "step": 1, then 1/10 from half way, then 1/100 for the last quarter.
    - "one-cycle": from 1/25 up to 1 over the first 30%, then down to 0, both along a cosine (Smith & Topin 2018);
      reaches a given quality in the fewest epochs.
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "exponential":
        return math.pow(0.01, progress)
    if schedule == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    if schedule == "one-cycle":
        rise, low = 0.3, 1 / 25
        if progress < rise:
            return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * progress / rise))
        return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
    return 1.0


SCHEDULES = ("constant", "cosine", "exponential", "step", "one-cycle")


def annealed_beta(step: int, cap: float, total_steps: int) -> float:
    """KL weight at a gradient update, counted from 0 and never reset; Liang et al. (2018), section 2.2.2.

    1. No annealing asked for: the cap throughout.
    2. Before the cap is reached: linear in the step.
    3. After: the cap.
    """
    if total_steps == 0:
        return cap
    return min(cap, step / total_steps)
