import pytest, asyncio
from leveret_proto import permissions
from leveret_proto.topology import *
import importlib.util,sys
spec=importlib.util.spec_from_file_location("account","/work/main/tests/integration/broker/account.py"); m=importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
Account=m.Account
async def test_attack(vhost):
    await vhost.provision({"w1": permissions.worker("w1"), "me": permissions.submitter(("me",))})
    async with Account.connected("me", vhost.url("me")) as me, Account.connected("w1", vhost.url("w1")) as w1:
        print("ex declare", await me.may_declare_exchange("leveret.client.evil"), await me.may_declare_exchange("amq.gen-x"))
        print("ex bind", await me.may_bind_exchange(SUBMIT, "leveret.client.evil", "#"))
        print("ex publish", await me.may_publish("leveret.client.evil", "other.proj", b"x"))
        n="leveret.session.w1.00000000-0000-0000-0000-000000000001"
        print("w ex", await w1.may_declare_exchange(n), await w1.may_bind_exchange(STATUS, n, "#"), await w1.may_publish(n, "w2.1.1"))
        print("e2e", await me.may_bind_exchange(SUBMIT, EVENTS, "job.public.#"))
        print("dlx", await me.own_queue(**{"x-dead-letter-exchange": SUBMIT, "x-dead-letter-routing-key": "other.x"}))
        print("cc", await me.may_publish(SUBMIT, "me.proj", b"cc", headers={"CC": ["other.proj"]}))
        print("own", await me.may_publish(SUBMIT, "me.proj", b"cc"), await me.may_publish(SUBMIT, "other.proj", b"cc"))
        await asyncio.sleep(0.5)
    async with Account.connected("intake", vhost.url("intake")) as i:
        ch=await (await i.on.channel()).get_underlay_channel()
        for _ in range(6):
            g=await ch.basic_get(INTAKE_SUBMISSIONS, no_ack=True)
            print(g.delivery.__class__.__name__, getattr(g.delivery,'routing_key',None), g.body)
