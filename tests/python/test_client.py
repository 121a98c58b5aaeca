#!/usr/bin/env python3
"""A client that shares no code with ours: Python's grpcio, stubs generated from proto/, against the demo's fleet.

    test_client.py --coordinator 127.0.0.1:1312 --ca ca.crt --cert operator.crt --key operator.key
    test_client.py --proxy 127.0.0.1:1313

Owns no fleet: deploy/demo.sh has one up, with demo-guest-1 and demo-guest-2 out of service, and they are out of service
again at the end. Every test stands alone; each channel has the options of IsardVDI's clients (docs of grpc: keepalive).
"""

import argparse
import importlib
import os
import sys
import tempfile
import threading
import unittest
from pathlib import Path

# grpc would log the refusals that are tested here. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
SERVICE = "operations.v1.OperationsService"
GUEST, OTHER_GUEST = "demo-guest-1", "demo-guest-2"
# Booting a kernel without hardware virtualisation, on a machine that compiles beside it.
OPERATION_SECONDS = 180
CALL_SECONDS = 20
# As IsardVDI's services open their channels.
ISARDVDI_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
# The most that the coordinator promises to bear.
EAGER_OPTIONS = [("grpc.keepalive_time_ms", 5_000), *ISARDVDI_OPTIONS[1:]]
INT32_MAX = 2**31 - 1
IDLE_SECONDS = 20

args = None
pb = None
stubs = None


def generate_stubs(into):
    """Compiles operations.proto as any user of it would."""
    file = "operations/v1/operations.proto"
    code = protoc.main(["protoc", f"-I{PROTO}", f"--python_out={into}", f"--grpc_python_out={into}", file])
    if code != 0:
        sys.exit(f"test_client.py: protoc does not take {PROTO / file} (exit {code})")
    sys.path.insert(0, into)
    return (
        importlib.import_module("operations.v1.operations_pb2"),
        importlib.import_module("operations.v1.operations_pb2_grpc"),
    )


def open_channel(options=None, with_certificate=True):
    options = ISARDVDI_OPTIONS if options is None else options
    if args.proxy:
        return grpc.insecure_channel(args.proxy, options=options)
    certificate, key = (args.cert.read_bytes(), args.key.read_bytes()) if with_certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(args.ca.read_bytes(), key, certificate)
    return grpc.secure_channel(args.coordinator, credentials, options=options)


class OperationsClient(unittest.TestCase):
    def setUp(self):
        self.channel = open_channel()
        self.addCleanup(self.channel.close)
        self.client = stubs.OperationsServiceStub(self.channel)

    # What the tests say in one line.

    def states(self):
        listed = self.client.ListHypervisors(pb.ListHypervisorsRequest(), timeout=CALL_SECONDS).hypervisors
        return {hypervisor.id: hypervisor.state for hypervisor in listed}

    def create(self, id):
        return list(self.client.CreateHypervisor(pb.CreateHypervisorRequest(id=id), timeout=OPERATION_SECONDS))

    def destroy(self, id):
        return list(self.client.DestroyHypervisor(pb.DestroyHypervisorRequest(id=id), timeout=OPERATION_SECONDS))

    def assert_ends(self, answers, state):
        """The stream ends with `state`, in words, and has no other end before."""
        self.assertTrue(answers, "the stream was empty")
        self.assertEqual(pb.OperationState.Name(answers[-1].state), pb.OperationState.Name(state), answers[-1].msg)
        self.assertNotEqual(answers[-1].msg.strip(), "", "the last message is what an administrator sees")
        ends = [a for a in answers if a.state in (pb.OPERATION_STATE_FAILED, pb.OPERATION_STATE_COMPLETED)]
        self.assertEqual(len(ends), 1, f"one end only: {answers}")

    def assert_code(self, code, call):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        self.assertEqual(raised.exception.code(), code, raised.exception.details())

    # The tests.

    def test_health_is_serving_under_the_service_name(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=CALL_SECONDS)
        self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_reflection_lists_the_services_and_describes_them(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertLessEqual({SERVICE, "hostler.fleet.v1.FleetService"}, set(database.get_services()))
        described = database.FindFileContainingSymbol(SERVICE)
        self.assertEqual(described.package, "operations.v1")

    def test_the_list_holds_every_hypervisor_with_its_inventory(self):
        listed = self.client.ListHypervisors(pb.ListHypervisorsRequest(), timeout=CALL_SECONDS).hypervisors
        by_id = {hypervisor.id: hypervisor for hypervisor in listed}
        self.assertLessEqual({"demo-host", GUEST, OTHER_GUEST}, set(by_id))
        self.assertGreater(by_id["demo-host"].cpu, 0)
        self.assertGreater(by_id["demo-host"].ram, 0)
        self.assertEqual((by_id[GUEST].cpu, by_id[GUEST].ram), (1, 256))

    def test_a_guest_is_created_listed_created_again_at_once_and_destroyed(self):
        answers = self.create(GUEST)
        self.assertEqual(answers[0].state, pb.OPERATION_STATE_SCHEDULED)
        self.assertIn(pb.OPERATION_STATE_ACTIVE, [answer.state for answer in answers])
        self.assert_ends(answers, pb.OPERATION_STATE_COMPLETED)
        self.assertEqual(self.states()[GUEST], pb.HYPERVISOR_STATE_AVAILABLE_TO_DESTROY)

        again = self.create(GUEST)
        self.assert_ends(again, pb.OPERATION_STATE_COMPLETED)
        self.assertNotIn(pb.OPERATION_STATE_ACTIVE, [answer.state for answer in again], "nothing was left to do")

        self.assert_ends(self.destroy(GUEST), pb.OPERATION_STATE_COMPLETED)
        self.assertEqual(self.states()[GUEST], pb.HYPERVISOR_STATE_AVAILABLE_TO_CREATE)

    def test_a_client_that_hangs_up_finds_its_operation_going_on(self):
        request = pb.CreateHypervisorRequest(id=OTHER_GUEST)
        stream = self.client.CreateHypervisor(request, timeout=OPERATION_SECONDS)
        self.assertEqual(next(stream).state, pb.OPERATION_STATE_SCHEDULED)
        stream.cancel()
        self.assert_ends(self.create(OTHER_GUEST), pb.OPERATION_STATE_COMPLETED)
        self.assertEqual(self.states()[OTHER_GUEST], pb.HYPERVISOR_STATE_AVAILABLE_TO_DESTROY)
        self.assert_ends(self.destroy(OTHER_GUEST), pb.OPERATION_STATE_COMPLETED)

    def test_a_bulk_call_with_one_unknown_id_fails_once_and_last(self):
        self.addCleanup(self.destroy, GUEST)
        request = pb.CreateHypervisorsRequest(ids=[GUEST, "nobody-here"])
        answers = list(self.client.CreateHypervisors(request, timeout=OPERATION_SECONDS))
        self.assert_ends(answers, pb.OPERATION_STATE_FAILED)
        self.assertIn("nobody-here", answers[-1].msg)

    def test_a_bulk_call_creates_and_destroys_every_id(self):
        ids = [GUEST, OTHER_GUEST]
        created = self.client.CreateHypervisors(pb.CreateHypervisorsRequest(ids=ids), timeout=OPERATION_SECONDS)
        self.assert_ends(list(created), pb.OPERATION_STATE_COMPLETED)
        states = self.states()
        self.assertEqual({states[id] for id in ids}, {pb.HYPERVISOR_STATE_AVAILABLE_TO_DESTROY})
        destroyed = self.client.DestroyHypervisors(pb.DestroyHypervisorsRequest(ids=ids), timeout=OPERATION_SECONDS)
        self.assert_ends(list(destroyed), pb.OPERATION_STATE_COMPLETED)

    def test_an_unknown_id_is_a_failed_operation_in_words_not_a_grpc_error(self):
        answers = self.create("nobody-here")
        self.assert_ends(answers, pb.OPERATION_STATE_FAILED)
        self.assertIn("nobody-here", answers[-1].msg)

    def test_a_malformed_request_is_an_invalid_argument(self):
        self.assert_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.create(""))
        self.assert_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.create("x" * 5000))

    def expand(self, min_bytes):
        return self.client.ExpandStorage(pb.ExpandStorageRequest(min_bytes=min_bytes), timeout=CALL_SECONDS)

    def shrink(self, max_bytes):
        return self.client.ShrinkStorage(pb.ShrinkStorageRequest(max_bytes=max_bytes), timeout=CALL_SECONDS)

    def test_the_pool_grows_by_at_least_and_shrinks_by_at_most_what_is_asked(self):
        self.assert_ends(list(self.expand(1)), pb.OPERATION_STATE_COMPLETED)
        self.assert_ends(list(self.shrink(INT32_MAX)), pb.OPERATION_STATE_COMPLETED)

    def test_more_storage_than_there_is_is_a_failed_operation_with_the_numbers(self):
        answers = list(self.expand(INT32_MAX))
        self.assert_ends(answers, pb.OPERATION_STATE_FAILED)
        self.assertIn("can be added", answers[-1].msg)

    def test_an_amount_of_nothing_or_less_is_an_invalid_argument(self):
        for amount in (0, -1, -INT32_MAX - 1):
            self.assert_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(self.expand(amount)))
            self.assert_code(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(self.shrink(amount)))

    def test_a_pool_without_files_is_not_backed_up(self):
        answers = list(self.client.CreateBackup(pb.CreateBackupRequest(), timeout=OPERATION_SECONDS))
        self.assert_ends(answers, pb.OPERATION_STATE_FAILED)
        self.assertIn("empty", answers[-1].msg)

    def test_idle_channels_with_keepalive_pings_stay_connected(self):
        channels = [open_channel(options) for options in (ISARDVDI_OPTIONS, EAGER_OPTIONS)]
        seen = [[] for _ in channels]
        for channel, states in zip(channels, seen):
            self.addCleanup(channel.close)
            grpc.channel_ready_future(channel).result(timeout=CALL_SECONDS)
            channel.subscribe(states.append)
        # Being idle is what is tested; an event that nobody sets spends the time.
        threading.Event().wait(IDLE_SECONDS)
        for channel, states in zip(channels, seen):
            client = stubs.OperationsServiceStub(channel)
            self.assertTrue(client.ListHypervisors(pb.ListHypervisorsRequest(), timeout=CALL_SECONDS).hypervisors)
            self.assertEqual(set(states), {grpc.ChannelConnectivity.READY}, "the connection was lost in between")

    def test_a_client_without_a_certificate_reaches_no_rpc(self):
        if args.proxy:
            self.skipTest("the proxy has the certificate")
        channel = open_channel(with_certificate=False)
        self.addCleanup(channel.close)
        health = health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest(service=SERVICE)
        self.assert_code(grpc.StatusCode.UNAVAILABLE, lambda: health.Check(check, timeout=CALL_SECONDS))


def main():
    global args, pb, stubs
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--coordinator", metavar="HOST:PORT", help="over mutual TLS; needs --ca, --cert and --key")
    where.add_argument("--proxy", metavar="ADDRESS", help="a `hostler proxy`, plaintext: HOST:PORT or unix:PATH")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    args, rest = parser.parse_known_args()
    if args.coordinator and not (args.ca and args.cert and args.key):
        parser.error("--coordinator needs --ca, --cert and --key")
    with tempfile.TemporaryDirectory() as into:
        pb, stubs = generate_stubs(into)
        program = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2)
    result = program.result
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} not for this way in", flush=True)
    sys.exit(0 if result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
