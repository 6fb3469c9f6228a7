"""The same twenty tasks for pyinfra, to be measured side by side."""

from io import StringIO
from pathlib import Path

from pyinfra import host, inventory
from pyinfra.operations import files, server, systemd

# Its own relative paths are those of the folder it is called in.
TEMPLATE = Path(__file__).resolve().parents[2] / "templates/bench.conf.j2"

for number, service in enumerate(["ssh", "dbus", "apache2", "systemd-networkd"], 1):
    server.shell(name=f"Command {number}", commands=[f"echo {number}"])
    files.put(
        name=f"Copy {number}",
        src=StringIO(f"file {number}\n"),
        dest=f"/root/bench-copy-{number}",
        mode="644",
    )
    files.template(
        name=f"Template {number}",
        src=str(TEMPLATE),
        dest=f"/root/bench-template-{number}.conf",
        mode="644",
        number=number,
        inventory_hostname=host.name,
        groups={"realservers": [each.name for each in inventory.get_group("realservers")]},
    )
    files.line(name=f"Line {number}", path="/root/bench-lines", line=f"line {number}")
    systemd.service(name=f"Service {number}", service=service, running=True)
