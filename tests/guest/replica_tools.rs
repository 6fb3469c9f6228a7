//! The tools of block replication beside the real ones, and the block device by itself.

use libtest_mimic::Trial;

use crate::support::guest::Guest;
use crate::trial;

/// Where the agent under test is put; its name is what its links are known by.
const AGENT: &str = "/root/halab-agent";

/// What an attack made at random is made from; another one each time unless given.
const SEED: &str = "HALAB_TEST_SEED";
/// How often the peer's connection breaks in the attack.
const ATTACKS: &str = "HALAB_TEST_REPLICA_ATTACKS";
const ATTACKS_DEFAULT: u32 = 12;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "replica_tools_say_what_drbd_utils_say_and_the_device_keeps_what_it_was_given",
        everything,
    )]
}

/// One guest for all of it: starting one takes longer than the tests.
fn everything() {
    let guest = Guest::new("replica-tools");
    guest.put_agent(AGENT);
    guest.run(CONFIGURATION).success();
    guest.run(METADATA).success();
    guest.run(REFUSALS).success();
    for backend in ["--ublk", "--nbd"] {
        guest.run(&DEVICE.replace("BACKEND", backend)).success();
    }
    attack(&guest);
}

/// Arbitrary bytes on every socket, a peer that stops in the middle, a wrong secret.
fn attack(guest: &Guest) {
    let seed = std::env::var(SEED)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(std::process::id);
    let count = std::env::var(ATTACKS)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(ATTACKS_DEFAULT);
    let program = include_str!("replica/attack.py");
    let script = format!(
        "cat > /root/attack.py <<'END'\n{program}\nEND\nseed={seed} count={count}\n{}",
        include_str!("replica/attack.sh")
    );
    let said = guest.run(&script);
    assert_eq!(said.code, 0, "seed {seed}: {said}");
}

/// `drbdadm dump` and the scripts' questions, for the text's resource and Debian's files.
const CONFIGURATION: &str = r#"
set -eu
own() { /root/halab-agent drbdadm "$@"; }
address=$(ip -o -4 addr show eth0 | awk '{ split($4, part, "/"); print part[1]; exit }')
cat > /etc/drbd.d/r0.res <<END
resource r0 {
  net { verify-alg sha1; }
  on $(uname -n) {
    device    /dev/drbd0;
    disk      /dev/loop6;
    address   $address:7788;
    meta-disk internal;
  }
  on other {
    device    /dev/drbd0;
    disk      /dev/loop6;
    address   10.0.23.3:7788;
    meta-disk internal;
  }
}
END
for question in dump "dump r0" sh-resources "sh-dev all" "sh-minor r0" "sh-ll-dev r0" "sh-md-dev r0" "sh-ip r0" \
  "-d up r0" "-d attach r0" "-d down r0" "-d create-md r0" "-d -- --overwrite-data-of-peer primary r0" \
  "-d -- --discard-my-data connect r0" "-d verify r0" "-d disconnect r0" "-d resize r0" "-d show-gi r0"; do
  diff -u <(drbdadm $question 2>&1) <(own $question 2>&1) || { echo "differs: $question"; exit 1; }
done
for wrong in "role nothing" "nonsense r0" "primary --foo r0"; do
  theirs=0; drbdadm $wrong > /dev/null 2>&1 || theirs=$?
  ours=0; own $wrong > /dev/null 2>&1 || ours=$?
  [ "$theirs" = "$ours" ] || { echo "ends with $ours instead of $theirs: $wrong"; exit 1; }
done
sed -i 's/devise\|device  /devise  /' /etc/drbd.d/r0.res
ours=0; said=$(own dump 2>&1) || ours=$?
[ "$ours" = 10 ] && [[ "$said" == *r0.res:4:5* ]] && [[ "$said" == *'did you mean `device`?'* ]] || { echo "$ours: $said"; exit 1; }
sed -i 's/devise  /device  /' /etc/drbd.d/r0.res
"#;

/// drbdmeta reads what ours wrote, ours reads what drbdmeta wrote, in each placement.
const METADATA: &str = r#"
set -eu
own() { /root/halab-agent drbdadm "$@"; }
theirs() { drbdmeta --force 0 v08 "$@" 2>&1; }
plain() { sed -e '/^# 20/d' -e '/^# .*> /d'; }
# One after the other: each opens the device for itself alone.
same() { theirs $at $word "$1" | plain > /root/theirs; own "$1" r0 2>&1 | plain > /root/ours; diff -u /root/theirs /root/ours; }
modprobe loop
for image in data meta; do truncate -s 300M /root/$image.img; done
losetup /dev/loop6 /root/data.img; losetup /dev/loop7 /root/meta.img
for place in internal /dev/loop7 '/dev/loop7[1]'; do
  case $place in
    internal) at=/dev/loop6 word=internal ;;
    *'[1]') at=/dev/loop7 word=1 ;;
    *) at=/dev/loop7 word=flex-external ;;
  esac
  sed -i "s|meta-disk .*;|meta-disk $place;|" /etc/drbd.d/r0.res
  for device in /dev/loop6 /dev/loop7; do dd if=/dev/zero of=$device bs=1M conv=fsync 2> /dev/null || true; done
  own create-md r0 < /dev/null
  same dump-md
  same get-gi
  same show-gi
  # Something that can be told apart: sizes, generations, bits.
  theirs $at $word dump-md > /root/dump
  python3 - <<END
import random
random.seed(5)
text = open("/root/dump").read()
words = []
while len(words) < 1200:
    words += [random.choice([0, 2**64 - 1, random.getrandbits(64)])] * random.choice([1, 2, 3, 60, 72, 90])
words = (words + [0] * 1536)[:1536]
lines = "".join("    0x%016X;\n" % word for word in words[:1175]) + "    361 times 0x0000000000000000;\n"
text = text.replace("la-size-sect 0;", "la-size-sect 604160;").replace("bm {\n}", "bm {\n" + lines + "}")
text = text.replace("0x0000000000000004; 0x0000000000000000;", "0x1111111111111110; 0x2222222222222222;")
open("/root/restore", "w").write(text)
END
  theirs $at $word restore-md /root/restore > /root/restored || { cat /root/restored; exit 1; }
  # What was restored has its log still to be applied.
  own apply-al r0
  same dump-md
  same show-gi
  # Asked, and not answered by a person: nothing is overwritten.
  code=0; own create-md r0 < /dev/null > /dev/null 2>&1 || code=$?
  [ "$code" = 1 ]
  own get-gi r0 | grep -q ^1111111111111110:2222222222222222:
  theirs $at $word create-md > /dev/null
  same dump-md
  own wipe-md --force r0
  if theirs $at $word get-gi; then echo 'still there'; exit 1; fi
done
sed -i "s|meta-disk .*;|meta-disk internal;|" /etc/drbd.d/r0.res
"#;

/// What create-md must not destroy.
const REFUSALS: &str = r#"
set -eu
own() { /root/halab-agent drbdadm "$@"; }
ends() { wanted=$1; shift; code=0; said=$("$@" 2>&1) || code=$?; [ "$code" = "$wanted" ] || { echo "$code: $said"; exit 1; }; }
mkfs.ext4 -q -F /dev/loop6
ends 40 own create-md --force r0
[[ "$said" == *'Found ext3 filesystem'* ]]
mkdir -p /root/place; mount /dev/loop6 /root/place
ends 20 own create-md --force r0
umount /root/place
fsck.ext4 -fn /dev/loop6 > /dev/null
mkfs.ext4 -q -F /dev/loop6 50M
ends 1 own create-md r0
own create-md --force r0 > /dev/null
fsck.ext4 -fn /dev/loop6 > /dev/null
losetup -d /dev/loop6; truncate -s 900K /root/data.img; losetup /dev/loop6 /root/data.img
ends 20 own create-md r0
[[ "$said" == *'too small'* ]]
losetup -d /dev/loop6; losetup -d /dev/loop7; rm /root/data.img /root/meta.img /etc/drbd.d/r0.res
"#;

/// A file as a device: a file system, verified random writes, flushes, discards, the end.
const DEVICE: &str = r#"
set -eu
truncate -s 64M /root/disk.img
rm -f /root/stop; mkfifo /root/stop
# What runs behind must not hold ssh's output: a script that fails would wait for it.
sleep 1000 > /root/stop 2> /dev/null & stop=$!
/root/halab-agent drbd export BACKEND /root/disk.img /dev/drbd0 < /root/stop > /root/said 2>&1 & server=$!
trap 'echo "BACKEND, line $LINENO, $BASH_COMMAND"; cat /root/said' ERR
trap 'kill $stop $server 2> /dev/null || true' EXIT
for turn in $(seq 300); do
  ! grep -q ready /root/said || break
  kill -0 $server
  sleep 0.1
done
grep -q ready /root/said
[ "$(blockdev --getsize64 /dev/drbd0)" = 67108864 ]
mkfs.ext4 -q -F /dev/drbd0
mkdir -p /root/place; mount /dev/drbd0 /root/place
grep -q '^/dev/drbd0 /root/place ext4' /proc/mounts
cp /root/halab-agent /root/place/a; sync; sum=$(sha256sum < /root/place/a)
umount /root/place; mount /dev/drbd0 /root/place; [ "$sum" = "$(sha256sum < /root/place/a)" ]; umount /root/place
fsck.ext4 -fn /dev/drbd0 > /dev/null
dd if=/dev/urandom of=/dev/drbd0 bs=4k count=50 oflag=direct,dsync 2> /dev/null
cmp -n 204800 /dev/drbd0 /root/disk.img
dd if=/dev/urandom of=/dev/drbd0 bs=1M count=16 oflag=direct 2> /dev/null
cmp -n 16777216 /dev/drbd0 /root/disk.img
fio --name=verify --filename=/dev/drbd0 --rw=randwrite --bs=4k --size=4M --direct=1 --ioengine=libaio --iodepth=16 \
  --verify=crc32c --verify_fatal=1 --output=/root/fio || { cat /root/fio; exit 1; }
blkdiscard -z -o 1M -l 1M /dev/drbd0; cmp -n 1048576 -i 1048576:0 /dev/drbd0 /dev/zero
blkdiscard -o 2M -l 2M /dev/drbd0
kill $stop; wait $server
[ ! -e /dev/drbd0 ]; rm /root/disk.img
"#;
