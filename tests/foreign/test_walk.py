"""Decisions of the walker, pinned on small trees written by hand."""

import http.server
import json
import os
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import facts  # noqa: E402
import walk  # noqa: E402
from walk_hardware import mac  # noqa: E402
from walk_index import normal, placeholder, type_of  # noqa: E402

V1 = "/redfish/v1"


def ref(*uris):
    return [{"@odata.id": V1 + uri} for uri in uris]


def doc(uri, kind, **properties):
    """One document of the current schema shape under its path."""
    name = kind if kind.endswith("Collection") else f"{kind}.v1_5_0"
    body = {"@odata.id": V1 + uri, "@odata.type": f"#{name}.{kind}", "Id": uri.rsplit("/", 1)[-1], "Name": kind}
    return {V1 + uri: {**body, **properties}}


def tree(*documents):
    found = {}
    for document in documents:
        found.update(document)
    return found


def server(uri="/Systems/1", **properties):
    properties = {"Actions": {"#ComputerSystem.Reset": {"target": V1 + uri + "/Actions/ComputerSystem.Reset"}},
                  "Boot": {"BootSourceOverrideTarget": "None"}, "SerialNumber": "S1", **properties}
    return doc(uri, "ComputerSystem", **properties)


def only_server(found):
    assert len(found["servers"]) == 1, found["systems"]
    return found["servers"][0]


class Systems(unittest.TestCase):
    def test_accelerator_baseboard_is_a_part_of_the_host(self):
        found = walk.walk(tree(
            doc("/Systems/HGX_Baseboard_0", "ComputerSystem", Boot={"StopBootOnFault": "Never"}),
            doc("/Systems/HGX_Baseboard_0/Processors/GPU_1", "Processor", ProcessorType="GPU", Model="H100"),
            server("/Systems/Host"),
            doc("/Systems/Host/Processors/1", "Processor", ProcessorType="CPU", Socket="1")))
        self.assertEqual([V1 + "/Systems/Host"], [item["uri"] for item in found["servers"]])
        board = found["systems"][0]
        self.assertFalse(board["can_be_server"])
        self.assertEqual("no ComputerSystem.Reset action", board["reason"])
        self.assertEqual(V1 + "/Systems/Host", board["part_of"])
        self.assertEqual(1, len(only_server(found)["processors"]["accelerators"]))
        self.assertEqual(1, only_server(found)["narrow_view_misses"]["accelerators_on_parts"])

    def test_switchable_board_of_accelerators_beside_a_server_is_a_part(self):
        found = walk.walk(tree(
            server("/Systems/Board"), doc("/Systems/Board/Processors/G", "Processor", ProcessorType="GPU"),
            server("/Systems/Host"), doc("/Systems/Host/Processors/C", "Processor", ProcessorType="CPU")))
        self.assertEqual(V1 + "/Systems/Host", only_server(found)["uri"])

    def test_reset_without_boot_or_bios_is_no_server(self):
        found = walk.walk(server(Boot=None))
        self.assertEqual([], found["servers"])
        self.assertEqual("neither Boot nor Bios", found["systems"][0]["reason"])

    def test_settings_object_is_no_system(self):
        found = walk.walk(tree(server(**{"@Redfish.Settings": {"SettingsObject": ref("/Systems/1/Next")[0]}}),
                               doc("/Systems/1/Next", "ComputerSystem"), doc("/Systems/1/SD", "ComputerSystem")))
        self.assertEqual(1, len(found["systems"]))
        self.assertEqual([V1 + "/Systems/1/Next", V1 + "/Systems/1/SD"], found["settings_objects_of_systems"])

    def test_the_same_cpu_on_host_and_part_counts_once(self):
        cpu = {"ProcessorType": "CPU", "Model": "Grace", "Socket": "G1:0.0"}
        found = walk.walk(tree(server("/Systems/Host"), doc("/Systems/Host/Processors/0", "Processor", **cpu),
                               doc("/Systems/Part", "ComputerSystem"), doc("/Systems/Part/Processors/0", "Processor", **cpu)))
        cpus = only_server(found)["processors"]["cpus"]
        self.assertEqual(1, len(cpus))
        self.assertEqual(2, len(cpus[0]["at"]))

    def test_placeholder_serial_is_flagged(self):
        found = walk.walk(server(SerialNumber="To be filled by O.E.M."))
        self.assertEqual({"value": "To be filled by O.E.M.", "placeholder": True}, found["systems"][0]["serial"])


class Chassis(unittest.TestCase):
    def chassis_of(self, *documents):
        return {item["uri"]: item["why"] for item in only_server(walk.walk(tree(*documents)))["chassis"]}

    def test_linked_only_from_the_chassis_side(self):
        why = self.chassis_of(server(Links={"Chassis": []}), doc("/Chassis/A", "Chassis", Links={"ComputerSystems": ref("/Systems/1")}))
        self.assertEqual(["Chassis.Links.ComputerSystems"], why[V1 + "/Chassis/A"])

    def test_contained_in_either_direction(self):
        why = self.chassis_of(
            server(Links={"Chassis": ref("/Chassis/Box")}), doc("/Chassis/Box", "Chassis", Links={"Contains": ref("/Chassis/Tray")}),
            doc("/Chassis/Tray", "Chassis"), doc("/Chassis/Bay", "Chassis", Links={"ContainedBy": ref("/Chassis/Tray/")[0]}))
        self.assertIn(f"contained in {V1}/Chassis/Box", why[V1 + "/Chassis/Tray"])
        self.assertIn(f"contained in {V1}/Chassis/Tray", why[V1 + "/Chassis/Bay"])

    def test_unlinked_chassis_of_the_only_server_is_assumed(self):
        why = self.chassis_of(server(), doc("/Chassis/Lone", "Chassis"))
        self.assertEqual(["no link; assumed because it is the only server"], why[V1 + "/Chassis/Lone"])

    def test_enclosure_around_two_servers_belongs_to_neither(self):
        found = walk.walk(tree(
            server("/Systems/A", Links={"Chassis": ref("/Chassis/A")}), server("/Systems/B", Links={"Chassis": ref("/Chassis/B")}),
            doc("/Chassis/Box", "Chassis", Links={"Contains": ref("/Chassis/A", "/Chassis/B")}),
            doc("/Chassis/A", "Chassis"), doc("/Chassis/B", "Chassis")))
        self.assertEqual([[V1 + "/Chassis/A"], [V1 + "/Chassis/B"]],
                         [[item["uri"] for item in each["chassis"]] for each in found["servers"]])
        box = next(item for item in found["chassis"] if item["id"] == "Box")
        self.assertEqual([V1 + "/Systems/A", V1 + "/Systems/B"], box["shared_by"])


class Managers(unittest.TestCase):
    def test_auxiliary_manager_first_in_the_collection(self):
        found = walk.walk(tree(
            server(Links={"ManagedBy": ref("/Managers/BMC")}),
            doc("/Managers", "ManagerCollection", Members=ref("/Managers/Aux", "/Managers/BMC")),
            doc("/Managers/Aux", "Manager", ManagerType="EnclosureManager"),
            doc("/Managers/BMC", "Manager", ManagerType="BMC")))
        self.assertEqual(V1 + "/Managers/BMC", only_server(found)["manager"]["uri"])
        self.assertFalse(only_server(found)["narrow_view_misses"]["first_manager_is_main"])
        self.assertEqual([V1 + "/Managers/Aux", V1 + "/Managers/BMC"], [item["uri"] for item in found["managers"]])

    def test_manager_linked_only_from_its_own_side(self):
        found = walk.walk(tree(
            server("/Systems/A"), server("/Systems/B"), doc("/Managers/A", "Manager", Links={"ManagerForServers": ref("/Systems/A")}),
            doc("/Managers/B", "Manager", Links={"ManagerForServers": ref("/Systems/B")})))
        self.assertEqual([V1 + "/Managers/A", V1 + "/Managers/B"], [item["manager"]["uri"] for item in found["servers"]])


class Parts(unittest.TestCase):
    def test_one_drive_by_two_routes_counts_once(self):
        drive = {"SerialNumber": " X1 ", "Model": "SSD", "CapacityBytes": 10}
        found = walk.walk(tree(
            server(Links={"Chassis": ref("/Chassis/1")}), doc("/Chassis/1", "Chassis"),
            doc("/Systems/1/Storage/S", "Storage", Drives=ref("/Systems/1/Storage/S/Drives/0")),
            doc("/Systems/1/Storage/S/Drives/0", "Drive", **drive), doc("/Chassis/1/Drives/7", "Drive", **drive),
            doc("/Chassis/1/Drives/8", "Drive", Status={"State": "Absent"}),
            doc("/Systems/1/SimpleStorage/1", "SimpleStorage", Devices=[{"Name": "Bay 1", "Model": "SSD", "CapacityBytes": 10}])))
        storage = only_server(found)["storage"]
        self.assertEqual([["Chassis Drives collection", "SimpleStorage", "Storage.Drives"]], [item["routes"] for item in storage["drives"]])
        self.assertEqual(1, storage["absent"])

    def test_two_members_of_one_collection_with_one_serial_stay_two(self):
        found = walk.walk(tree(server(), *(doc(f"/Systems/1/Memory/{slot}", "Memory", SerialNumber="M1", CapacityMiB=1024) for slot in "AB"),
                               doc("/Systems/1/Memory/C", "Memory", CapacityMiB=0)))
        memory = only_server(found)["memory"]
        self.assertEqual((2, 1), (len(memory["dimms"]), memory["absent_or_empty"]))
        self.assertEqual(["one serial number twice in a collection (memory)"], [entry["what"] for entry in found["odd"]])

    def test_macs_are_merged_and_those_of_the_bmc_kept_apart(self):
        found = walk.walk(tree(
            server(), doc("/Managers/1", "Manager"), doc("/Managers/1/EthernetInterfaces/1", "EthernetInterface", MACAddress="AA-00-00-00-00-02"),
            doc("/Systems/1/EthernetInterfaces/1", "EthernetInterface", MACAddress="98:03:9B:00:00:01"),
            doc("/Systems/1/EthernetInterfaces/2", "EthernetInterface", MACAddress="00:00:00:00:00:00"),
            doc("/Systems/1/EthernetInterfaces/ToManager", "EthernetInterface", MACAddress="0a:00:00:00:00:09"),
            doc("/Systems/1/BootOptions/1", "BootOption", BootOptionReference="Boot0001",
                UefiDevicePath="PciRoot(0x0)/MAC(98039B000001,0x1)/IPv4(0.0.0.0)")))
        network = only_server(found)["network"]
        self.assertEqual([{"mac": "98:03:9b:00:00:01", "routes": ["BootOption", "System EthernetInterface"]}], network["host_macs"])
        self.assertEqual(["aa:00:00:00:00:02"], [entry["mac"] for entry in network["bmc_macs"]])
        self.assertEqual(["0a:00:00:00:00:09"], [entry["mac"] for entry in network["host_interface_macs"]])

    def test_readings_are_numeric_null_missing_or_text(self):
        found = walk.walk(tree(
            server(Links={"Chassis": ref("/Chassis/1")}), doc("/Chassis/1", "Chassis"),
            *(doc(f"/Chassis/1/Sensors/{name}", "Sensor", Name=name, **body) for name, body in (
                ("a", {"Reading": 1.5}), ("b", {"Reading": None}), ("c", {}), ("d", {"Reading": "31.0"}),
                ("e", {"Reading": 0, "Status": {"State": "Absent"}}))),
            doc("/Chassis/1/Thermal", "Thermal", Temperatures=[{"Name": "a", "ReadingCelsius": 20}, {"Name": "z", "ReadingCelsius": None}])))
        sensors = only_server(found)["sensors"]
        self.assertEqual({"total": 5, "numeric": 2, "null": 1, "missing": 1, "text": 1, "absent": 1}, sensors["sensors"])
        self.assertEqual({"both": 1, "only_sensor": 4, "only_legacy": 1}, sensors["names"])

    def test_registry_found_by_its_attribute_names(self):
        found = walk.walk(tree(
            server(), doc("/Systems/1/Bios", "Bios", Attributes={"A": 1, "AdminPassword": "x"}),
            doc("/Registries/R/R", "AttributeRegistry", RegistryEntries={"Attributes": [{"AttributeName": "A"}]})))
        bios = only_server(found)["bios"][0]
        self.assertEqual(("by its attribute names", V1 + "/Registries/R/R"), (bios["registry_match"], bios["registry_at"]))
        self.assertEqual("(redacted)", bios["attributes"]["AdminPassword"])


class Documents(unittest.TestCase):
    def test_error_in_disguise_is_no_resource(self):
        found = walk.walk(tree(
            server(), {V1 + "/Chassis/1/Sensors/F": {"error": {"code": "Base.1.0.InternalError"}}},
            doc("/Chassis/1", "Chassis", Sensors=ref("/Chassis/1/Sensors/F")[0], Links={"Drives": ref("/Gone")}),
            doc("/Managers/1/Port", "Port", error={"code": "x"}), {V1 + "/Junk": "<html>"}))["tree"]
        self.assertEqual([V1 + "/Chassis/1/Sensors/F"], found["errors_in_disguise"])
        self.assertEqual([V1 + "/Managers/1/Port"], found["resources_with_error"])
        self.assertEqual([V1 + "/Chassis/1/Sensors/F"], found["to_error_documents"])
        self.assertEqual([V1 + "/Gone"], [entry["target"] for entry in found["dangling_targets"]])
        self.assertEqual([V1 + "/Junk"], found["not_json"])

    def test_path_in_two_spellings_counts_once(self):
        found = walk.walk(tree(server(), doc("/Systems/1/Bios", "Bios"), doc("/systems/1/bios", "Bios")))
        self.assertEqual((2, 3), (found["tree"]["resources"], found["tree"]["recorded"]))

    def test_inline_entries_and_further_pages_are_counted(self):
        entry = {"@odata.type": "#LogEntry.v1_4_0.LogEntry", "Id": "1", "Name": "Log", "Message": "m"}
        log = "/Systems/1/LogServices/Log"
        found = walk.walk(tree(
            server(), doc(log, "LogService", Entries=ref(log + "/Entries")[0]),
            doc(log + "/Entries", "LogEntryCollection", Members=[{"@odata.id": V1 + log + "/Entries/1", **entry}]),
            {V1 + log + "/Entries?$skip=1": {"Members": [{"@odata.id": V1 + log + "/Entries/2", **entry}]}}))
        self.assertEqual(2, found["logs"][0]["entries"])
        self.assertEqual(2, found["tree"]["embedded_only"])

    def test_strange_values_do_not_stop_the_walk(self):
        strange = [None, True, 7, "", "x", [], {}, [None], [[1]], {"@odata.id": 5}]
        kinds = ("Processor", "Memory", "Drive", "EthernetInterface", "BootOption", "Bios", "Sensor", "Thermal", "Power",
                 "LogService", "PCIeFunction", "Unheard")
        keys = ("Attributes", "Reading", "Temperatures", "Voltages", "Devices", "CapacityMiB", "MACAddress", "Status", "Name",
                "MemberId", "Entries", "Links", "Drives", "ClassCode", "VendorId")
        for value in strange:
            documents = [doc(f"/Systems/1/{kind}", kind, **dict.fromkeys(keys, value)) for kind in kinds]
            json.dumps(walk.walk(tree(server(Boot={"BootOrder": value, "x": 1}), *documents)), sort_keys=True)

    def test_report_does_not_depend_on_the_order_of_documents(self):
        documents = tree(server(), doc("/Chassis/1", "Chassis"), doc("/Systems/1/Bios", "Bios", Attributes={"b": 1, "a": 2}))
        first = json.dumps(walk.walk(documents), sort_keys=True)
        self.assertEqual(first, json.dumps(walk.walk(dict(reversed(documents.items()))), sort_keys=True))

    def test_helpers(self):
        self.assertEqual("/redfish/v1/Systems/1", normal("https://bmc/redfish/v1//Systems/1/#/Boot"))
        self.assertEqual("Drive", type_of({"@odata.type": "#Drive.v1_11_0.Drive"}))
        self.assertEqual("Thermal", type_of({"@odata.context": "/redfish/v1/$metadata#Thermal.Thermal"}))
        self.assertEqual([True, True, True, True, False], [placeholder(value) for value in (
            "N/A", "00000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "....................", "S1")])
        self.assertEqual(["aa:bb:cc:dd:ee:01", None, None, None], [mac(value) for value in (
            "AABBCCDDEE01", "00:00:00:00:00:00", "Not Available", "0011:2233:4455:6677")])


class Loading(unittest.TestCase):
    DOCUMENTS = tree({V1: {"@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot", "@odata.id": V1 + "/", "Systems": ref("/Systems")[0]}},
                     doc("/Systems", "ComputerSystemCollection", Members=ref("/Systems/1")), server())

    def test_folder_with_and_without_the_prefix(self):
        for prefix in ("redfish/v1", ""):
            with tempfile.TemporaryDirectory() as folder:
                for uri, body in self.DOCUMENTS.items():
                    place = os.path.join(folder, prefix, uri.removeprefix(V1).strip("/"))
                    os.makedirs(place, exist_ok=True)
                    with open(os.path.join(place, "index.json"), "w", encoding="utf-8") as handle:
                        json.dump(body, handle)
                with open(os.path.join(folder, prefix, "Systems", "bad.json"), "w", encoding="utf-8") as handle:
                    handle.write("{")
                documents, broken = walk.load(folder)
                self.assertEqual(self.DOCUMENTS, documents)
                self.assertEqual([V1 + "/Systems/bad.json"], broken)

    def test_live_service_is_crawled_by_its_links(self):
        documents = self.DOCUMENTS

        class Service(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = documents.get(self.path.rstrip("/"))
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        try:
            found, broken = walk.crawl(f"http://127.0.0.1:{service.server_port}", "u", "p", False, 100)
        finally:
            service.shutdown()
            service.server_close()
        self.assertEqual((documents, []), (found, broken))

    def test_summary_line_has_a_value_for_every_column(self):
        line = facts.summary("tree", walk.walk(self.DOCUMENTS))
        self.assertEqual(len(facts.SUMMARY_HEAD.split()), len(line.split()))


if __name__ == "__main__":
    unittest.main()
