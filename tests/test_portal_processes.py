"""The portal where processes end, fork or are interrupted: each answered in bounded time, in a process of its own."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import finish, run_python, start_python

HEAD = """
import asyncio, atexit, logging, os, signal, sys, threading, time
import utd_fsm.signal
from utd_fsm import signals
from utd_fsm.errors import *
from utd_fsm.portal import portal

async def number(n=1):
    return n

class Slow:
    def __init__(self): self.begun = threading.Event(); self.cancelled = threading.Event()
    async def __call__(self):
        self.begun.set()
        try: await asyncio.Event().wait()
        except asyncio.CancelledError: self.cancelled.set(); raise

logging.basicConfig()

def say(*words): print(*words, flush=True)

def alarm_when_begun(slow):
    threading.Thread(target=lambda: (slow.begun.wait(), os.kill(os.getpid(), signal.SIGALRM)), daemon=True).start()

def child_says(work):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try: os.write(w, str(work()).encode())
        except BaseException as error: os.write(w, repr(error).encode())
        finally: os._exit(0)
    os.close(w)
    text = b""
    while part := os.read(r, 1000): text += part
    os.close(r); os.waitpid(pid, 0)
    return text.decode()
"""


def test_ctrl_c_interrupts_a_blocked_call_and_cancels_its_work() -> None:
    process = start_python(
        HEAD
        + """
slow = Slow()
threading.Thread(target=lambda: (slow.begun.wait(), time.sleep(0.2), say("waiting")), daemon=True).start()
try:
    portal().call(slow, timeout=None, what="waiting for bob")
except KeyboardInterrupt:
    say("interrupted", slow.cancelled.wait(20), portal().call(lambda: number(5), what="after it"))
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert out == "interrupted True 5\n"
    assert err == ""


def test_whatever_a_signal_handler_raises_cancels_the_work() -> None:
    out, err = run_python(
        HEAD
        + """
class Stop(BaseException): ...
def handler(*_): raise Stop
signal.signal(signal.SIGALRM, handler)
slow = Slow()
alarm_when_begun(slow)
try: portal().call(slow, timeout=None, what="x")
except Stop: say("stopped", slow.cancelled.wait(20))
"""
    )
    assert (out, err) == ("stopped True\n", "")


def test_a_signal_handler_may_call_and_release() -> None:
    out, err = run_python(
        HEAD
        + """
lease = portal().hold()
def handler(*_):
    say("handler", portal().call(lambda: number(3), what="from the handler"))
    lease.release(); lease.release()
signal.signal(signal.SIGALRM, handler)
slow = Slow()
alarm_when_begun(slow)
try: portal().call(slow, timeout=None, what="waiting for bob")
except UTDClosedError as error: say("closed:", error)
"""
    )
    assert out.startswith("handler 3\nclosed: waiting for bob")
    assert err == ""


def test_a_signal_handler_that_comes_while_the_lock_is_held_does_not_deadlock() -> None:
    out, err = run_python(
        HEAD
        + """
import utd_fsm.portal; utd_fsm.portal._JOIN = 0.5    # how long a release waits for what can't come
lease = portal().hold()
def handler(*_):
    say(portal().call(lambda: number(3), what="from the handler"))
    other = portal().hold(); other.release(); lease.release()
    say("released")
signal.signal(signal.SIGALRM, handler)
with portal().lock:
    signal.raise_signal(signal.SIGALRM)
say(portal().call(lambda: number(4), what="after it"))
"""
    )
    assert (out, err) == ("3\nreleased\n4\n", "")


def test_a_blocked_process_can_be_ended_by_sigterm() -> None:
    process = start_python(
        HEAD
        + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
async def farewell(): say("farewell")
lease = portal().hold(); portal().at_exit(farewell)
slow = Slow()
threading.Thread(target=lambda: (slow.begun.wait(), say("waiting")), daemon=True).start()
portal().call(slow, timeout=None, what="waiting for bob")
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process) == ("farewell\n", "")


# exit without close


def test_exit_without_close_says_farewell_while_everything_still_works() -> None:
    begun = time.monotonic()
    out, err = run_python(
        HEAD
        + """
async def request(): return await portal().in_thread(lambda: "ended")
async def farewell():
    await asyncio.sleep(0.01)
    say("farewell", await request())
async def broken(): raise KeyError("this one fails")
lease = portal().hold()
portal().at_exit(farewell)
taken_back = portal().at_exit(broken); taken_back()
portal().call(request, what="x")
atexit.register(say, "a library ends itself")  # as LiveKit's does, after the portal was first used
async def background():
    await asyncio.Event().wait()
async def start():
    for n in range(20): portal().spawn(background(), name="background")
portal().call(start, what="x")
""",
        timeout=30,
    )
    assert out == "farewell ended\na library ends itself\n"
    assert err == ""
    assert time.monotonic() - begun < 20


def test_a_farewell_that_fails_or_hangs_is_bounded_and_costs_the_others_nothing() -> None:
    out, err = run_python(
        HEAD
        + """
async def farewell(): say("farewell")
async def broken(): raise KeyError("this one fails")
async def hang(): await asyncio.Event().wait()
lease = portal().hold()
for fn in (hang, broken, farewell): portal().at_exit(fn)
atexit.register(lambda: say("end"))
import utd_fsm.portal; utd_fsm.portal.FAREWELL = 1.0
""",
    )
    assert out == "farewell\nend\n"
    assert "this one fails" in err
    assert "1 of 3 sessions were not ended within 1 s" in err
    assert "destroyed" not in err


def test_a_loop_that_hangs_does_not_hang_the_exit() -> None:
    out, err = run_python(
        HEAD
        + """
import utd_fsm.portal; utd_fsm.portal.FAREWELL = 1.0; utd_fsm.portal._JOIN = 1.0
async def farewell(): say("never")
async def block(): time.sleep(300)
lease = portal().hold(); portal().at_exit(farewell)
portal().post(block)
""",
    )
    assert out == ""
    assert "did not answer at exit" in err


def test_threads_that_still_wait_at_exit_are_told() -> None:
    out, err = run_python(
        HEAD
        + """
slow, told = Slow(), threading.Event()
def wait():
    try: portal().call(slow, timeout=None, what="waiting for bob")
    except UTDClosedError as error: say(error); told.set()
lease = portal().hold()
atexit.register(lambda: say("told", told.wait(20)))
threading.Thread(target=wait, daemon=True).start()
slow.begun.wait()
atexit.register(lambda: None)
lease2 = portal().hold()
"""
    )
    assert out.splitlines() == ["waiting for bob: utd_fsm was closed before it finished", "told True"]
    assert err == ""


def test_a_request_that_hangs_does_not_hang_the_exit() -> None:
    out, err = run_python(
        HEAD
        + """
lease = portal().hold()
begun = threading.Event()
def request(): begun.set(); time.sleep(300)
portal().post(lambda: portal().in_thread(request))
begun.wait()
"""
    )
    assert (out, err) == ("", "")


def test_a_receiver_that_blocks_does_not_hang_the_exit() -> None:
    out, err = run_python(
        HEAD
        + """
from utd_fsm.observable import Observable
lease = portal().hold()
value, begun = Observable(0, name="value"), threading.Event()
def block(*_, **extra): begun.set(); time.sleep(300)
value.changed.connect(block)
async def change(): value.set(1)
portal().call(change, what="x")
begun.wait()
"""
    )
    assert (out, err) == ("", "")


def test_after_exit_has_begun_nothing_starts_again() -> None:
    out, err = run_python(
        HEAD
        + """
def late():
    try: portal().call(number, what="too late")
    except UTDClosedError as error: say(error)
atexit.register(late)
lease = portal().hold()
portal().call(number, what="x")
"""
    )
    assert out == "the interpreter is exiting: utd_fsm has stopped its threads\n"
    assert err == ""


# fork


def test_a_child_forked_before_the_first_use_has_its_own() -> None:
    out, err = run_python(
        HEAD
        + """
say(child_says(lambda: portal().call(lambda: number(os.getpid()), what="x")) not in ("", str(os.getpid())))
say(portal().call(lambda: number(2), what="x"))
"""
    )
    assert (out, err) == ("True\n2\n", "")


def test_a_child_forked_after_use_begins_afresh_and_leaves_the_parents_alone() -> None:
    out, err = run_python(
        HEAD
        + """
import gc
from utd_fsm.observable import Observable
slow = Slow()
old, lease = portal(), portal().hold()
value = Observable(0, name="status of call 7")
future = old.post(slow); slow.begun.wait()

def work():
    words = []
    for attempt in (lambda: old.call(number, what="x"), lambda: old.post(number), old.hold,
                    lambda: value.wait_for(1), lambda: next(value.updates())):
        try: attempt(); words.append("no refusal")
        except UTDClosedError as error: words.append("forked" if "forked from" in str(error) else str(error))
    lease.release()
    own = portal().hold()
    words.append(portal().call(lambda: number(4), what="x"))
    words.append(portal().pid == os.getpid() and portal() is not old)
    own.release(); gc.collect()
    words.append(len(os.listdir("/proc/self/task")))
    return words
say(child_says(work))
say(old.call(lambda: number(5), what="x"), future.done(), slow.cancelled.is_set())
future.cancel(); say(slow.cancelled.wait(20))
"""
    )
    assert out == "['forked', 'forked', 'forked', 'forked', 'forked', 4, True, 1]\n5 False False\nTrue\n"
    assert err == ""


def test_a_childs_exit_says_nothing_for_the_parent_and_the_parent_stays_well() -> None:
    out, err = run_python(
        HEAD
        + """
import gc
async def farewell(): say("farewell of", "the parent" if os.getpid() == parent else "the child")
parent = os.getpid()
lease = portal().hold(); portal().at_exit(farewell)
async def background(): await asyncio.Event().wait()
async def start():
    for n in range(5): portal().spawn(background(), name="background")
portal().call(start, what="x")
pid = os.fork()
if pid == 0:
    gc.collect()
    sys.exit(0)          # the whole way out of an interpreter, exit handlers and all
_, status = os.waitpid(pid, 0)
say("child", status, portal().call(lambda: number(6), what="x"))
"""
    )
    assert out == "child 0 6\nfarewell of the parent\n"
    assert err == ""


def test_a_child_forked_while_every_lock_is_held_works() -> None:
    out, err = run_python(
        HEAD
        + """
from utd_fsm.dispatcher import dispatcher
from utd_fsm.observable import Observable
held, go = threading.Event(), threading.Event()
def hold():
    with portal().lock, dispatcher()._lock, utd_fsm.signal._books:
        held.set(); go.wait(60)
lease = portal().hold()
value = Observable(0, name="value")
running = threading.Event()
def block(*_, **extra): running.set(); go.wait(60)
value.changed.connect(block)
async def change(n): value.set(n)
portal().call(lambda: change(1), what="x"); running.wait()
threading.Thread(target=hold, daemon=True).start(); held.wait()

def work():
    own = portal().hold()
    value = Observable(0, name="value"); got = []
    def receive(sender, **payload): got.append(payload["value"])
    value.changed.connect(receive); signals.invited.connect(receive, weak=False)
    async def change(): value.set(1); dispatcher().emit(signals.invited, None, value=2)
    portal().call(change, what="x")
    signals.drain(20)
    own.release()
    return got
say(child_says(work))
go.set()
"""
    )
    assert (out, err) == ("[1, 2]\n", "")


def test_a_child_that_frees_the_parents_loop_does_not_make_it_deaf() -> None:
    """The child shares the parent's epoll object: closing the loop there would take the parent's wake-ups away."""
    out, err = run_python(
        HEAD
        + """
import gc, warnings
warnings.simplefilter("ignore")         # that the child drops an open loop is what is tried here
from utd_fsm.loop_thread import Run
from utd_fsm.portal import Portal, _Call
own = Portal(); run = Run(own)          # as when the fork comes between its making and its start
def work():
    global run
    del run
    gc.collect()
    return "freed"
say(child_says(work))
run.thread.start()
time.sleep(0.2)                         # asleep in its selector: only a wake-up reaches it now
call = _Call(number, "x"); run.submit(call)
say(call.gate.acquire(timeout=20), call.result)
run.abort(); run.thread.join(20)
"""
    )
    assert (out, err) == ("freed\nTrue 1\n", "")


def test_nothing_emitted_in_the_parent_is_delivered_in_the_child() -> None:
    out, err = run_python(
        HEAD
        + """
from utd_fsm.dispatcher import dispatcher
gate, running, got = threading.Event(), threading.Event(), []
def receive(sender, *, n):
    got.append(n); running.set(); gate.wait(60)
signals.invited.connect(receive)
for n in range(5): dispatcher().emit(signals.invited, None, n=n)
running.wait()
def work():
    gate.set(); got.clear()
    dispatcher().emit(signals.invited, None, n=100)
    signals.drain(20)
    return got
say(child_says(work))
gate.set(); signals.drain(20); say(got)
"""
    )
    assert (out, err) == ("[100]\n[0, 1, 2, 3, 4]\n", "")


def test_a_child_forked_by_a_receiver_works() -> None:
    out, err = run_python(
        HEAD
        + """
from utd_fsm.dispatcher import dispatcher
def receive(sender, **extra):
    say(child_says(lambda: (portal().call(lambda: number(8), what="x"), signals.drain(20))))
signals.invited.connect(receive)
dispatcher().emit(signals.invited, None)
signals.drain(60)
"""
    )
    assert (out, err) == ("(8, None)\n", "")


# green threads


@pytest.mark.parametrize(
    ("module", "function", "patched"),
    [("gevent.monkey", "is_module_patched", "gevent"), ("eventlet.patcher", "is_monkey_patched", "eventlet")],
)
def test_a_patched_interpreter_is_refused_with_the_mend(module: str, function: str, patched: str) -> None:
    """The library itself is not installed here: what it says of itself, by its documented function, stands in."""
    out, err = run_python(
        HEAD
        + f"""
import types
fake = types.ModuleType("{module}"); sys.modules["{module}"] = fake
fake.{function} = lambda name: False
say(portal().call(number, what="unpatched"))
fake.{function} = lambda name: name in ("threading", "thread", "socket")
for attempt in (lambda: portal().call(number, what="call.start()"), lambda: signals.drain(),
                lambda: asyncio.run(portal().acall(number, timeout=1, what="call.start()"))):
    try: attempt()
    except UTDWouldBlockError as error: say("patched by {patched}" in str(error) and "gthread" in str(error))
"""
    )
    assert (out, err) == ("1\nTrue\nTrue\nTrue\n", "")
