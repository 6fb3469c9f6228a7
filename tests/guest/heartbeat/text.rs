//! Section 03 of the text, typed as it stands there, with the agent in the package's place.

use libtest_mimic::Trial;

use super::Software::Agent;
use super::{NODES, Pair};
use crate::support::Lab;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("section_03_of_the_text_works_to_the_letter", by_hand)]
}

/// What the text has typed on each node: commands, and the content of files.
pub(crate) fn typed(own: &str, peer: &str, peer_address: &str) -> String {
    // The lines of files are the text's; how they get there is the student's editor.
    format!(
        "set -e\n\
         echo \"{peer_address} {peer}\" >> /etc/hosts\n\
         cat > /etc/ha.d/ha.cf <<END\n\
         autojoin none\n\
         ucast eth0 {peer_address}\n\
         node saisp-vm-2 saisp-vm-3\n\
         END\n\
         cat > /etc/ha.d/authkeys <<END\n\
         auth 1\n\
         1 sha1 42ade27dad9045964fab10a395ffe4e0f726a80b\n\
         END\n\
         chmod 600 /etc/ha.d/authkeys\n\
         cat > /etc/ha.d/haresources <<END\n\
         saisp-vm-2 10.0.0.50 apache2\n\
         END\n\
         echo \"my secret\" | openssl sha1\n\
         test $(hostname) = {own}\n\
         /etc/init.d/heartbeat restart\n"
    )
}

fn by_hand() {
    let lab = Lab::new("hbtext");
    lab.halab(["up"]).success();
    let pair = Pair {
        lab,
        software: [Agent, Agent],
    };
    pair.play("stand-in.yml", "state=present");
    let [first, second] = NODES;
    // Both at once, as in two terminals: a node waits half a minute for one that is not there.
    std::thread::scope(|scope| {
        let nodes = [(first, second, "10.0.0.30"), (second, first, "10.0.0.20")];
        for (own, peer, address) in nodes {
            let pair = &pair;
            scope.spawn(move || pair.on(own, &typed(own, peer, address)).success());
        }
    });
    pair.owner_is(first, &NODES);
    let page = "curl -s -m 5 http://10.0.0.50/";
    pair.eventually("the page is the first node's", || {
        let said = pair.lab.client(page);
        (said.stdout.contains(first), said.to_string())
    });
    pair.on(first, "service heartbeat stop").success();
    pair.owner_is(second, &NODES);
    pair.eventually("the page is the second node's", || {
        let said = pair.lab.client(page);
        (said.stdout.contains(second), said.to_string())
    });
    // The words a student of the text may type, and what they see.
    pair.on(first, "heartbeat -s").failure(3);
    pair.on(first, "cl_status hbstatus").failure(1);
    let said = pair.on(second, "heartbeat -s").success();
    assert!(said.starts_with("heartbeat OK [pid "), "{said}");
    assert!(
        said.contains("is running on saisp-vm-3 [saisp-vm-3]..."),
        "{said}"
    );
    pair.on(first, "systemctl start heartbeat").success();
    pair.owner_is(first, &NODES);
    for node in NODES {
        pair.on(node, "systemctl stop heartbeat").success();
    }
    pair.play("stand-in.yml", "state=absent");
    // The package answers to its names again.
    let unit = pair.on(
        first,
        "systemctl cat heartbeat; command -v heartbeat; command -v cl_status",
    );
    assert!(
        unit.stdout.contains("/usr/libexec/heartbeat/heartbeat -f"),
        "{unit}"
    );
    assert!(
        unit.stdout.trim_end().ends_with("/usr/bin/cl_status"),
        "{unit}"
    );
}
