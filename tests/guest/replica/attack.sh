# One daemon with an application on it, its true peer in a namespace, and attack.py between them.
# Given: seed, count.
set -eu
trap 'code=$?; [ $code = 0 ] || { /root/halab-agent drbd proc; journalctl -u halab-replica-r0 --no-pager | tail -30; tail -30 /root/r1.log; }
      touch /root/attack.end; kill $(jobs -p) 2> /dev/null || true; exit $code' EXIT
adm() { /root/halab-agent drbdadm -c /root/attack.conf "$@"; }
text() { /root/halab-agent drbd proc | grep -A1 "^ *0:"; }
becomes() {
  for turn in $(seq 600); do ! text | grep -Eq "$1" || return 0; sleep 0.2; done
  echo "it did not become $1"; return 1
}
# Whoever comes to it first hangs up; the other may only see that.
one_says() {
  for turn in $(seq 300); do
    ! { cat /root/r1.log; journalctl -u halab-replica-r0 --no-pager; } | grep -q "$1" || return 0
    sleep 0.2
  done
  echo "nobody says $1"; return 1
}
inside() { nsenter --net=/run/netns/peer "$@"; }
daemon() { systemctl show -p MainPID -p NRestarts halab-replica-r0; }

ip netns add peer
ip link add va type veth peer name vb netns peer
ip addr add 10.99.0.1/24 dev va; ip link set va up
for last in 2 3 4; do ip -n peer addr add 10.99.0.$last/24 dev vb; done
ip -n peer link set vb up; ip -n peer link set lo up
configure() {
  echo 'global { disable-ip-verification; }'
  for resource in "0 /dev/loop6 10.99.0.1 10.99.0.2 right" "1 /dev/loop7 10.99.0.3 10.99.0.4 $1"; do
    set -- $resource
    cat <<END
resource r$1 {
  protocol C;
  net {
    cram-hmac-alg sha1; shared-secret "$5"; data-integrity-alg sha1;
    timeout 20; ping-int 3; ping-timeout 10; connect-int 3;
  }
  disk { resync-rate 100M; c-plan-ahead 0; }
  on $(uname -n) { device /dev/drbd$1; disk $2; address $3:7788; meta-disk internal; }
  on other { device /dev/drbd$1; disk $2; address $4:7788; meta-disk internal; }
}
END
  done
}
configure wrong > /root/attack.conf
rm -f /root/attack.end
modprobe loop
for number in 6 7; do
  truncate -s 24M /root/attack$number.img
  losetup /dev/loop$number /root/attack$number.img
  dd if=/dev/urandom of=/dev/loop$number bs=1M count=24 2> /dev/null
done
for resource in r0 r1; do adm create-md --force $resource > /dev/null; done
adm up r0
adm -- --overwrite-data-of-peer primary r0
mkfs.ext4 -q -F /dev/drbd0
mkdir -p /root/place; mount /dev/drbd0 /root/place
seq 100000 > /root/place/before; sync; sum=$(sha256sum < /root/place/before)
before=$(daemon)

# Strangers, while an application writes.
while [ ! -e /root/attack.end ]; do
  dd if=/dev/urandom of=/root/place/bulk bs=64k count=32 conv=notrunc,fsync || break
  sleep 0.1
done > /dev/null 2>&1 & writer=$!
inside python3 /root/attack.py strangers $seed 150
becomes 'cs:WFConnection ro:Primary/Unknown ds:UpToDate/'
[ "$(daemon)" = "$before" ]

# A peer with another secret changes nothing, and hears why.
inside /root/halab-agent replica serve r1 1 0 /dev/drbd1 > /root/r1.log 2>&1 &
for turn in $(seq 100); do ! adm cstate r1 > /dev/null 2>&1 || break; sleep 0.1; done
inside python3 /root/attack.py between $seed 0 > /root/between 2>&1 & between=$!
adm attach r1; adm connect r1
one_says 'the peer has another shared secret'
becomes 'cs:(WFConnection|StandAlone) ro:Primary/Unknown ds:UpToDate/'
touch /root/attack.end; wait $between; wait $writer || true
adm disconnect r1 || true; adm disconnect r0 || true
rm /root/attack.end /root/between

# The true peer, whose connection is cut, stalled and falsified wherever it is.
configure right > /root/attack.conf
while [ ! -e /root/attack.end ]; do
  dd if=/dev/urandom of=/root/place/bulk bs=64k count=32 conv=notrunc,fsync || break
  sleep 0.1
done > /dev/null 2>&1 & writer=$!
inside python3 /root/attack.py between $seed $count > /root/between 2>&1 & between=$!
adm connect r0; adm connect r1
for turn in $(seq 3000); do
  ! grep -s cut /root/between || break
  kill -0 $between
  sleep 0.2
done
grep -q cut /root/between
# A node that was told something impossible stands alone, and waits for a person.
for turn in $(seq 60); do
  for resource in r0 r1; do [ "$(adm cstate $resource)" != StandAlone ] || adm connect $resource || true; done
  ! text | grep -q 'cs:Connected .*ds:UpToDate/UpToDate' || break
  sleep 2
done
kill $writer 2> /dev/null || true; wait $writer || true
becomes 'cs:Connected .*ds:UpToDate/UpToDate'; becomes ' oos:0'
[ "$sum" = "$(sha256sum < /root/place/before)" ]
umount /root/place
fsck.ext4 -fn /dev/drbd0 > /dev/null
[ "$(daemon)" = "$before" ]
bytes=$(blockdev --getsize64 /dev/drbd0)
adm secondary r0
adm down r0
adm down r1
cmp -n $bytes /dev/loop6 /dev/loop7
! grep -i panic /root/r1.log
touch /root/attack.end; wait $between || true
losetup -d /dev/loop6; losetup -d /dev/loop7
ip netns del peer; rm -f /root/attack6.img /root/attack7.img
