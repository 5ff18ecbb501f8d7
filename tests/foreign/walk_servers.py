"""Which systems of a Redfish tree are servers, and what belongs to each of them."""

import collections
import re

from walk_index import ROOT, dig, text

MANAGER_RANK = {"BMC": 3, "ManagementController": 2, None: 1}


class Relations:
    """Which systems are servers, and which parts, chassis and managers belong to each."""

    def __init__(self, tree):
        self.tree = tree
        self.systems = tree.all("ComputerSystem")
        self.chassis = tree.all("Chassis")
        self.managers = tree.all("Manager")
        self.verdicts = {system.uri: self._verdict(system) for system in self.systems}
        self.servers = [uri for uri, verdict in self.verdicts.items() if verdict["can_be_server"]]
        self._demote_accelerators()
        self.hosts = {}
        for system in self.systems:
            if system.uri not in self.servers:
                self.hosts[system.uri] = self._host(system)
        self.owned = {server: {} for server in self.servers}  # server -> chassis -> reasons
        self.shared = {}
        self._chassis_of()
        self.main_manager = {server: self._main_manager(server) for server in self.servers}

    def _verdict(self, system):
        actions = system.get("Actions") or {}
        reset = any(key.endswith("ComputerSystem.Reset") for key in actions) if isinstance(actions, dict) else False
        boot, bios = bool(system.get("Boot")), bool(system.get("Bios"))
        kind = text(system.get("SystemType"))
        if kind == "OS":
            return {"can_be_server": False, "reason": "SystemType OS is an operating system, not hardware"}
        if self.tree.linked(system.get("Links", "HostingComputerSystem")):
            return {"can_be_server": False, "reason": "hosted by another system (Links.HostingComputerSystem)"}
        if not reset:
            return {"can_be_server": False, "reason": "no ComputerSystem.Reset action"}
        if not boot and not bios:
            return {"can_be_server": False, "reason": "neither Boot nor Bios"}
        have = " and ".join(name for name, there in (("Boot", boot), ("Bios", bios)) if there)
        return {"can_be_server": True, "reason": f"has ComputerSystem.Reset and {have}"}

    def _demote_accelerators(self):
        """A switchable board of accelerators next to a real server is still a part of it."""
        for uri in list(self.servers):
            system = self.tree.find(uri)
            kinds = {text(item.get("ProcessorType")) for item in self.tree.all("Processor")
                     if item.uri.startswith(uri + "/") and item.get("ProcessorType")} - {"Core", "Thread"}
            named = re.search(r"baseboard|^hgx", system.id, re.I) and not system.get("Bios")
            only = bool(kinds) and "CPU" not in kinds
            dpu = text(system.get("SystemType")) == "DPU"
            others = [other for other in self.servers if other != uri]
            if others and (only or named or dpu):
                why = "a DPU" if dpu else "accelerators only" if only else "named as a baseboard and without Bios"
                self.verdicts[uri] = {"can_be_server": False, "reason": f"{why}, beside another server"}
                self.servers.remove(uri)

    def _host(self, part):
        tree = self.tree
        for uri in tree.linked(part.get("Links", "HostingComputerSystem")):
            if uri in self.servers:
                return uri, "Links.HostingComputerSystem"
        if len(self.servers) == 1:
            return self.servers[0], "the only server of the service"
        managers = set(tree.linked(part.get("Links", "ManagedBy")))
        near = [uri for uri in self.servers if managers & set(tree.linked(tree.find(uri).get("Links", "ManagedBy")))]
        if len(near) == 1:
            return near[0], "shares its manager"
        own = self._tops(tree.linked(part.get("Links", "Chassis")))
        near = [uri for uri in self.servers if own & self._tops(tree.linked(tree.find(uri).get("Links", "Chassis")))]
        return (near[0], "shares its outer chassis") if len(near) == 1 else (None, "no server can be told")

    def _parents(self, chassis):
        found = set(self.tree.linked(chassis.get("Links", "ContainedBy")))
        found |= {other.uri for other in self.chassis
                  if chassis.uri in self.tree.linked(other.get("Links", "Contains"))}
        return found - {chassis.uri}

    def _tops(self, uris):
        found, queue = set(uris), list(uris)
        while queue:
            body = self.tree.find(queue.pop())
            for parent in self._parents(body) if body else ():
                if parent not in found:
                    found.add(parent)
                    queue.append(parent)
        return found

    def family(self, server):
        """The server and the systems that are parts of it."""
        return [server] + [uri for uri, (host, _) in sorted(self.hosts.items()) if host == server]

    def _claim(self, server, chassis, reason):
        if self.tree.find(chassis) is not None and chassis in {item.uri for item in self.chassis}:
            known = self.owned[server].setdefault(chassis, [])
            if reason not in known:
                known.append(reason)
                return True
        return False

    def _chassis_of(self):
        tree = self.tree
        for server in self.servers:
            family = self.family(server)
            for uri in family:
                whose = "" if uri == server else f" of part {tree.find(uri).id}"
                for chassis in tree.linked(tree.find(uri).get("Links", "Chassis")):
                    self._claim(server, chassis, "System.Links.Chassis" + whose)
                for chassis in self.chassis:
                    if uri in tree.linked(chassis.get("Links", "ComputerSystems")):
                        self._claim(server, chassis.uri, "Chassis.Links.ComputerSystems" + whose)
        direct = {server: set(found) for server, found in self.owned.items()}
        children = collections.defaultdict(set)
        for chassis in self.chassis:
            for parent in self._parents(chassis):
                children[parent].add(chassis.uri)
        self._close(children, direct)
        for server in self.servers:
            inside = tuple(uri + "/" for uri in self.family(server))
            managers = {uri for uri in self.managers_of(server) if len(self.servers_of(uri)) == 1}
            for chassis in self.chassis:
                if any(chassis.uri in direct[other] for other in self.servers if other != server):
                    continue
                held = [uri for key in ("Storage", "Drives", "Processors", "PCIeDevices", "Switches")
                        for uri in tree.linked(chassis.get("Links", key))]
                if any(uri.startswith(inside) for uri in held):
                    self._claim(server, chassis.uri, "holds parts of the system (Chassis.Links)")
                listed = any(chassis.uri in tree.linked(tree.find(uri).get("Links", key))
                             for uri in managers for key in ("ManagerForChassis", "ManagerInChassis"))
                if listed or managers & set(tree.linked(chassis.get("Links", "ManagedBy"))):
                    self._claim(server, chassis.uri, "run by a manager of this server only")
        self._close(children, direct)
        for _ in self.chassis:  # outer chassis: own when all servers inside are one, else shared
            before = {server: len(found) for server, found in self.owned.items()}
            for chassis in self.chassis:
                inside = {server for server in self.servers if children[chassis.uri] & set(self.owned[server])}
                if len(inside) == 1:
                    self._claim(inside.pop(), chassis.uri, "contains a chassis of this server")
                elif len(inside) > 1 and not any(chassis.uri in direct[server] for server in self.servers):
                    self.shared[chassis.uri] = sorted(inside)
                    for server in inside:
                        self.owned[server].pop(chassis.uri, None)
            self._close(children, direct)
            if before == {server: len(found) for server, found in self.owned.items()}:
                break
        if len(self.servers) == 1:
            for chassis in self.chassis:
                if chassis.uri not in self.owned[self.servers[0]]:
                    self._claim(self.servers[0], chassis.uri, "no link; assumed because it is the only server")

    def _close(self, children, direct):
        for server in self.servers:
            queue = list(self.owned[server])
            while queue:
                parent = queue.pop()
                for child in sorted(children[parent]):
                    foreign = any(child in direct[other] for other in self.servers if other != server)
                    if parent not in self.shared and not foreign and child not in self.owned[server]:
                        if self._claim(server, child, f"contained in {parent}"):
                            queue.append(child)

    def servers_of(self, manager):
        """Servers that a manager is linked with, in either direction."""
        tree, body = self.tree, self.tree.find(manager)
        listed = tree.linked(body.get("Links", "ManagerForServers"))
        return [server for server in self.servers if server in listed
                or manager in tree.linked(tree.find(server).get("Links", "ManagedBy"))]

    def managers_of(self, server):
        """Managers linked with the server or with a part of it, in either direction."""
        tree, found = self.tree, set()
        for uri in self.family(server):
            found.update(tree.linked(tree.find(uri).get("Links", "ManagedBy")))
            found.update(item.uri for item in self.managers
                         if uri in tree.linked(item.get("Links", "ManagerForServers")))
        if len(self.servers) == 1:
            found.update(item.uri for item in self.managers)
        return sorted(found & {item.uri for item in self.managers})

    def _main_manager(self, server):
        tree = self.tree
        providing = set(tree.linked(dig(getattr(tree.find(ROOT), "body", None), "Links", "ManagerProvidingService")))
        ranked = []
        for uri in self.managers_of(server):
            manager, reasons, score = tree.find(uri), [], 0
            if uri in tree.linked(tree.find(server).get("Links", "ManagedBy")):
                score, reasons = score + 8, reasons + ["System.Links.ManagedBy"]
            if server in tree.linked(manager.get("Links", "ManagerForServers")):
                score, reasons = score + 8, reasons + ["ManagerForServers"]
            if uri in providing:
                score, reasons = score + 4, reasons + ["ServiceRoot.Links.ManagerProvidingService"]
            kind = text(manager.get("ManagerType"))
            score += MANAGER_RANK.get(kind, 0)
            reasons.append(f"ManagerType {kind}")
            if manager.get("NetworkProtocol") or manager.get("VirtualMedia"):
                score, reasons = score + 1, reasons + ["has NetworkProtocol or VirtualMedia"]
            ranked.append((-score, uri, reasons))
        if not ranked:
            return None
        ranked.sort()
        _, uri, reasons = ranked[0]
        if len(ranked) == 1:
            reasons = reasons + ["the only candidate"]
        return {"uri": uri, "reasons": reasons, "others": [item[1] for item in ranked[1:]]}

    def server_for(self, uri):
        """Server that a resource belongs to, by the system, chassis or manager it lies below."""
        home = self.tree.home(uri, ("ComputerSystem", "Chassis", "Manager"))
        if home is None:
            return self.servers[0] if len(self.servers) == 1 else None
        if home.type == "ComputerSystem":
            return home.uri if home.uri in self.servers else self.hosts.get(home.uri, (None,))[0]
        if home.type == "Chassis":
            return next((server for server in self.servers if home.uri in self.owned[server]), None)
        near = [server for server in self.servers if home.uri in self.managers_of(server)]
        return near[0] if len(near) == 1 else None
