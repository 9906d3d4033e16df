"""Trainers that are killed, frozen or careless: every step is in the log exactly once."""

import signal
import subprocess
import sys
import time

from ekko.ops.broker import Broker
from tests.streams.publisher.own_broker import counts_in

TRAINER = """
import sys, time
import numpy as np
from ekko.streams.kafka import transactional_writer
from ekko.streams.publisher import Publisher

bootstrap, steps = sys.argv[1], int(sys.argv[2])
if len(sys.argv) > 3:  # patient: a machine that keeps it waiting in a transaction does not end that
    transactional_writer.TRANSACTION_TIMEOUT_MS = 60_000
with Publisher("ctr", bootstrap=bootstrap, transactional_id="job", timeout_s=120) as publisher:
    done = int(publisher.last_position() or b"0")
    print("from", done, flush=True)
    for step in range(done, steps):
        publisher.publish("users", np.arange(50), np.full((50, 16), 2.0**-24))
        publisher.publish("users", np.arange(50, 100), np.full((50, 16), 2.0**-24), position=str(step + 1).encode())
        print(step + 1, flush=True)
"""

PATIENT = "patient"


def test_a_trainer_killed_again_and_again_learns_every_step_exactly_once(own_broker: Broker) -> None:
    steps, starts = 150, []
    for kill_after in (20, 45, 70, None):
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER, own_broker.bootstrap, str(steps), PATIENT],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert trainer.stdout is not None
        starts.append(int(trainer.stdout.readline().split()[1]))
        for line in trainer.stdout:
            if kill_after is not None and int(line) >= kill_after:
                trainer.send_signal(signal.SIGKILL)
                break
        trainer.wait(120)
        trainer.stdout.close()
    assert trainer.returncode == 0
    assert starts[0] == 0
    assert sorted(starts) == starts
    assert all(start >= 20 for start in starts[1:])
    assert counts_in(own_broker.bootstrap).tolist() == [steps] * 100


def test_a_trainer_that_froze_while_another_took_over_adds_nothing(own_broker: Broker) -> None:
    command = [sys.executable, "-c", TRAINER, own_broker.bootstrap, "60", PATIENT]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    for line in frozen.stdout:
        if not line.startswith("from") and int(line) >= 20:
            frozen.send_signal(signal.SIGSTOP)
            break
    second = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert 20 <= int(second.stdout.split()[1]) < 60
    frozen.send_signal(signal.SIGCONT)
    _, told = frozen.communicate(timeout=180)
    assert frozen.returncode != 0
    assert "Fenced" in told
    assert counts_in(own_broker.bootstrap).tolist() == [60] * 100


def test_a_trainer_that_froze_for_longer_than_a_transaction_may_last_goes_on_exactly(own_broker: Broker) -> None:
    command = [sys.executable, "-c", TRAINER, own_broker.bootstrap, "60"]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    for line in frozen.stdout:
        if not line.startswith("from") and int(line) in (15, 30, 45):
            frozen.send_signal(signal.SIGSTOP)
            time.sleep(3.0)  # the broker aborts what was open after 2 s
            frozen.send_signal(signal.SIGCONT)
    frozen.communicate(timeout=180)
    if frozen.returncode != 0:  # it was told that its transaction is gone: a restart must know how far it came
        subprocess.run([*command, PATIENT], capture_output=True, timeout=180, check=True)
    assert counts_in(own_broker.bootstrap).tolist() == [60] * 100
