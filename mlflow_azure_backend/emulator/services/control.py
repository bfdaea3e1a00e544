"""The emulator's own host, ``https://emulator.test`` through its proxy: what tests order."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from mlflow_azure_backend.emulator.azure_errors import arm_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.jobs import Job
from mlflow_azure_backend.emulator.nodes import KIND as COMPUTES
from mlflow_azure_backend.emulator.routing import CONTROL, Known, Service

service = Service("Emulator control", host=CONTROL)

_SOURCE = "docs/emulator.md"


@service.operation("Faults_Order", "POST", "/faults", known=Known.OURS, source=_SOURCE)
async def order_fault(call: Call) -> Answer:
    """Let a fault strike from now on."""
    try:
        fault = call.world.faults.order(dict(call.body or {}))
    except ValueError as error:
        raise arm_error(400, "BadFault", str(error)) from None
    return Answer(asdict(fault), 201)


@service.operation("Faults_List", "GET", "/faults", known=Known.OURS, source=_SOURCE)
async def list_faults(call: Call) -> Answer:
    """The faults in force, with how often each has struck."""
    return Answer({"value": [asdict(one) for one in call.world.faults.orders]})


@service.operation("Faults_Clear", "DELETE", "/faults", known=Known.OURS, source=_SOURCE)
async def clear_faults(call: Call) -> Answer:
    """Take back all faults, or the one that ``?number=`` names."""
    number = call.query.get("number")
    call.world.faults.clear(None if number is None else int(number))
    return Answer(status=204)


@service.operation("Exchanges_List", "GET", "/exchanges", known=Known.OURS, source=_SOURCE)
async def list_exchanges(call: Call) -> Answer:
    """The last requests with their answers; not those to this host."""
    return Answer({"value": call.world.exchanges.all()})


@service.operation("Exchanges_Set", "PUT", "/exchanges", known=Known.OURS, source=_SOURCE)
async def set_exchanges(call: Call) -> Answer:
    """Let bodies be kept from now on, or not: ``{"bodies": true}``."""
    call.world.exchanges.bodies = bool(call.body["bodies"])
    return Answer(status=204)


@service.operation("Exchanges_Forget", "DELETE", "/exchanges", known=Known.OURS, source=_SOURCE)
async def forget_exchanges(call: Call) -> Answer:
    """Forget the requests until now."""
    call.world.exchanges.forget()
    return Answer(status=204)


@service.operation("Clock_Set", "PUT", "/clock", known=Known.OURS, source=_SOURCE)
async def set_clock(call: Call) -> Answer:
    """Move the service's clock by ``skew_seconds`` against the machine's."""
    call.world.clock.skew = timedelta(seconds=float(call.body["skew_seconds"]))
    return Answer({"now": call.world.clock.now().isoformat()})


@service.operation("Tokens_Revoke", "POST", "/tokens/revoke", known=Known.OURS, source=_SOURCE)
async def revoke_tokens(call: Call) -> Answer:
    """Let all tokens issued until now count as expired."""
    call.world.tokens.revoke_all()
    return Answer(status=204)


@service.operation("Computes_Fail", "POST", "/computes/{name}/fail", known=Known.OURS, source=_SOURCE)
async def fail_compute(call: Call) -> Answer:
    """Let a cluster's provisioning have failed, with ``code`` and ``message``."""
    key = call.path["name"].lower()
    document = call.world.state.get(COMPUTES, key)
    if document is None:
        raise arm_error(404, "NoCompute", f"There is no compute {call.path['name']}.")
    call.world.state.put(COMPUTES, key, {**document, "error": {name: call.body[name] for name in ("code", "message")}})
    return Answer(status=204)


@service.operation("Jobs_Order", "PUT", "/jobs/{name}/orders", known=Known.OURS, source=_SOURCE)
async def order_for_job(call: Call) -> Answer:
    """Let a job, also one that is not there yet, show ``status`` in place of its own, or bring its logs late."""
    orders, body = call.world.orders_for(call.path["name"]), dict(call.body or {})
    unknown = sorted(body.keys() - {"status", "late_logs"})
    if unknown:
        raise arm_error(400, "BadOrder", f"{unknown[0]}: no such order; there are status and late_logs")
    orders.status = body.get("status", orders.status)
    orders.late_logs = body.get("late_logs", orders.late_logs)
    return Answer({"status": orders.status, "late_logs": orders.late_logs})


@service.operation("Jobs_Preempt", "POST", "/jobs/{name}/preempt", known=Known.OURS, source=_SOURCE)
async def preempt_job(call: Call) -> Answer:
    """Take a running job's nodes away: its commands are killed, and it waits in the queue for its next attempt."""
    if _job(call).status != "Running":
        raise arm_error(409, "NotRunning", f"Job {call.path['name']} does not run; it is {_job(call).status}.")
    call.world.orders_for(call.path["name"]).preempted.set()
    return Answer(status=204)


@service.operation("Jobs_Vanish", "POST", "/jobs/{name}/vanish", known=Known.OURS, source=_SOURCE)
async def vanish_job(call: Call) -> Answer:
    """Let a job be found no more; its commands are ended."""
    name = _job(call).name
    call.world.orders_for(name).vanished = True
    await call.world.jobs.remove(name)
    return Answer(status=204)


def _job(call: Call) -> Job:
    job = call.world.jobs.get(call.path["name"])
    if job is None:
        raise arm_error(404, "NoJob", f"There is no job {call.path['name']}.")
    return job
