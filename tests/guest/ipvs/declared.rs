//! Everything a service can have, declared to the agent's `lvs_service` as a playbook's task
//! declares it, and read by the real ipvsadm.

use serde_json::{Value, json};

use super::{FOLDER, THEIRS, run_inside};
use crate::support::guest::Guest;

/// Gives the agent one task after the other from a file, prints what it says of each.
const CLIENT: &str = r#"
import json, struct, subprocess, sys
agent = subprocess.Popen([sys.argv[1], "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def receive():
    frame = agent.stdout.read(struct.unpack(">I", agent.stdout.read(4))[0])
    return json.loads(frame[4:4 + struct.unpack(">I", frame[:4])[0]])
receive()
for task in json.load(open(sys.argv[2])):
    head = json.dumps({"run": {"id": 1, "check": False, "diff": False, "environment": {}, **task}}).encode()
    frame = struct.pack(">I", len(head)) + head
    agent.stdin.write(struct.pack(">I", len(frame)) + frame); agent.stdin.flush()
    result = receive()["done"]["result"]
    print("failed" if result.get("failed") else "changed" if result["changed"] else "ok", result.get("msg", ""))
"#;

/// Every protocol, family, kind of forwarding and tunnel, and all that is optional.
fn table() -> Value {
    let mut services = vec![
        json!({"service": "10.0.0.1:80", "scheduler": "wrr", "servers": [
            {"server": "10.0.0.20", "weight": 3, "upper_threshold": 100, "lower_threshold": 50},
            {"server": "10.0.0.30", "method": "tun"},
            {"server": "10.0.0.40", "method": "tun", "tunnel_type": "gue", "tunnel_port": 6080, "tunnel_checksum": "remote"},
            {"server": "10.0.0.50", "method": "tun", "tunnel_type": "gre", "tunnel_checksum": "full"},
            {"server": "10.0.0.60:8080", "method": "nat", "weight": 0},
        ]}),
        json!({"service": "10.0.0.1:5060", "protocol": "udp", "scheduler": "rr", "engine": "sip",
               "persistent": 60, "one_packet": true, "servers": [{"server": "10.0.0.20"}]}),
        json!({"service": "10.0.0.1:53", "protocol": "udp", "scheduler": "sh",
               "scheduler_flags": ["sh-port", "sh-fallback"], "servers": []}),
        json!({"service": "10.0.0.2:22", "protocol": "sctp", "scheduler": "mh",
               "scheduler_flags": ["mh-port"], "servers": [{"server": "10.0.0.20", "method": "nat"}]}),
        json!({"service": "[2001:db8::1]:80", "scheduler": "lc", "persistent": 300, "netmask": 64,
               "servers": [{"server": "[2001:db8::20]:80"}]}),
        json!({"service": "10.0.0.2", "scheduler": "wlc", "persistent": 360, "netmask": "255.255.255.0",
               "servers": [{"server": "10.0.0.20"}]}),
        json!({"fwmark": 7, "scheduler": "rr", "servers": [{"server": "10.0.0.20"}]}),
        json!({"fwmark": 9, "family": "ipv6", "scheduler": "rr", "servers": [{"server": "2001:db8::20"}]}),
    ];
    let more = ["lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf"];
    services.extend(more.iter().zip(9000..).map(
        |(scheduler, port)| json!({"service": format!("10.0.0.1:{port}"), "scheduler": scheduler}),
    ));
    json!({"services": services, "exclusive": true})
}

/// The same as ipvsadm saves it; thresholds and tunnels are in other listings.
const SAVED: &str = "\
-A -t 10.0.0.1:80 -s wrr
-a -t 10.0.0.1:80 -r 10.0.0.20:80 -g -w 3
-a -t 10.0.0.1:80 -r 10.0.0.30:80 -i -w 1 --tun-type ipip
-a -t 10.0.0.1:80 -r 10.0.0.40:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.0.0.50:80 -i -w 1 --tun-type gre --tun-csum
-a -t 10.0.0.1:80 -r 10.0.0.60:8080 -m -w 0
-A -t 10.0.0.1:9000 -s lblc
-A -t 10.0.0.1:9001 -s lblcr
-A -t 10.0.0.1:9002 -s dh
-A -t 10.0.0.1:9003 -s sed
-A -t 10.0.0.1:9004 -s nq
-A -t 10.0.0.1:9005 -s fo
-A -t 10.0.0.1:9006 -s ovf
-A -t 10.0.0.2:0 -s wlc -p 360 -M 255.255.255.0
-a -t 10.0.0.2:0 -r 10.0.0.20:0 -g -w 1
-A -t [2001:db8::1]:80 -s lc -p 300 -M 64
-a -t [2001:db8::1]:80 -r [2001:db8::20]:80 -g -w 1
-A -u 10.0.0.1:53 -s sh -b sh-fallback,sh-port
-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip -o
-a -u 10.0.0.1:5060 -r 10.0.0.20:5060 -g -w 1
-A --sctp-service 10.0.0.2:22 -s mh -b mh-port
-a --sctp-service 10.0.0.2:22 -r 10.0.0.20:22 -m -w 1
-A -f 7 -s rr
-a -f 7 -r 10.0.0.20:0 -g -w 1
-A -f 9 -6 -s rr
-a -f 9 -6 -r [2001:db8::20]:0 -g -w 1
";

/// What is asked for and cannot be, with what the kernel or the module says of it.
const REFUSED: [(&str, &str); 3] = [
    (
        r#"{"service": "10.0.0.1:81", "scheduler": "nonesuch"}"#,
        "Scheduler or persistence engine not found",
    ),
    (
        r#"{"service": "10.0.0.1:81", "servers": [{"server": "10.0.0.20", "tunnel_port": 0, "method": "tun", "tunnel_type": "gue"}]}"#,
        "'0' is not a whole number, 1 to 65535",
    ),
    (
        r#"{"service": "10.0.0.1:81", "servers": [{"server": "10.0.0.255"}]}"#,
        "Invalid",
    ),
];

pub(super) fn every_setting(guest: &Guest) {
    let run = |args: &Value| json!({"module": "lvs_service", "args": args});
    let mut changed = table();
    changed["services"][0]["servers"][0]["weight"] = json!(9);
    let mut tasks = vec![run(&table()), run(&table()), run(&changed), run(&table())];
    for (args, _) in REFUSED {
        tasks.push(run(&serde_json::from_str(args).expect("written above")));
    }
    tasks.push(run(&json!({"service": "10.0.0.1:81", "state": "absent"})));
    let tasks = Value::from(tasks);
    let script = format!(
        "cat > {FOLDER}/client.py <<'END'\n{CLIENT}END\ncat > {FOLDER}/tasks.json <<'END'\n{tasks}\nEND\n\
         {THEIRS} -C\npython3 {FOLDER}/client.py {FOLDER}/halab-agent {FOLDER}/tasks.json\necho @table\n\
         LC_ALL=C {THEIRS} -S -n\necho @thresholds\n{THEIRS} -L -n -t 10.0.0.1:80 --thresholds"
    );
    let found = run_inside(guest, &script);
    let (said, rest) = found.split_once("@table\n").expect("the mark");
    let (saved, thresholds) = rest.split_once("@thresholds\n").expect("the mark");
    let said: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(
        said[..4],
        ["changed", "ok", "changed", "changed"],
        "{found}"
    );
    for ((args, why), said) in REFUSED.iter().zip(&said[4..]) {
        assert!(
            said.starts_with("failed") && said.contains(why),
            "{args}: {said}"
        );
    }
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(saved), sorted(SAVED), "{found}");
    assert!(
        thresholds.contains("10.0.0.20:80                 100        50 "),
        "{thresholds}"
    );
}
