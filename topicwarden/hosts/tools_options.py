"""Options of programs that speak to brokers, by what they mean."""

from __future__ import annotations

import re
from typing import Final

from topicwarden.hosts.tools_grammar import Means


def options(**spelled: str) -> dict[str, Means]:
    """Return options by their names, given by meaning."""
    return {name: Means(means) for means, names in spelled.items() for name in names.split()}


def _getopt(spec: str) -> dict[str, Means]:
    """Return the options of a specification as getopt(3) takes it."""
    return {f"-{letter}": Means.VALUE if valued else Means.FLAG for letter, valued in re.findall(r"(\w)(:?)", spec)}


MOSQUITTO: Final = options(
    host="-h --host",
    port="-p --port",
    url="-L --url",
    name="-t --topic",
    also="-e --will-topic",
    payload="-m --message --will-payload",
    secret="-P --pw",  # noqa: S106 - names of options
    tls_value="--cafile --capath --psk",
    config="-o",
    socket="--unix",
    service="-S",
    property="-D --property",
    stop="--help --version",
    value=(
        "-A --cert --ciphers -C -f --file -F -i --id -I --id-prefix -k --keepalive --key --keyform -M --proxy"
        " --psk-identity -q --qos --random-filter --repeat --repeat-delay -T --filter-out --tls-alpn --tls-engine"
        " --tls-engine-kpass-sha1 --tls-version -u --username -U --unsubscribe -V --protocol-version -W --will-qos -x"
    ),
    flag=(
        "-c --disable-clean-session -d --debug -E --insecure -l --stdin-line -n --null-message -N --no-tls --nodelay"
        " --pretty --quic --quiet -r --retain -R --remove-retained --retain-as-published --retained-only -s"
        " --stdin-file --tls-use-os-certs -v --verbose -w --watch --will-retain --ws"
    ),
)
AMQP: Final = options(
    url="-u --url",
    address="-s --server",
    port="--port",
    secret="--password",  # noqa: S106
    tls="--ssl",
    value="--vhost --username --heartbeat --authfile --cacert --key --cert",
    stop="-? --help --usage",
)
AMQP_PUBLISH: Final = AMQP | options(
    name="-r --routing-key",
    also="-e --exchange",
    payload="-b --body",
    value="-C --content-type -t --reply-to -E --content-encoding -H --header",
    flag="-p --persistent -l --line-buffered",
)
AMQP_CONSUME: Final = AMQP | options(
    name="-q --queue -r --routing-key",
    also="-e --exchange",
    value="-c --count -p --prefetch-count",
    flag="-x --exclusive -A --no-ack -d --declare",
)
AMQP_QUEUE: Final = AMQP | options(name="-q --queue", flag="-d --durable -e --if-empty --if-unused")
RABBITMQADMIN: Final = options(
    host="-H --host",
    port="-P --port",
    url="-U --base-uri",
    secret="-p --password",  # noqa: S106
    config="-c --config",
    flag=(
        "-s --ssl -q --quiet -k --ssl-insecure --ssl-disable-hostname-verification -R --sort-reverse --bash-completion"
    ),
    stop="-h --help --version",
    value=(
        "-N --node --path-prefix -V --vhost -u --username --ssl-key-file --ssl-cert-file --ssl-ca-cert-file"
        " -t --request-timeout -f --format -S --sort -d --depth"
    ),
)
MQTTX: Final = options(
    host="-h --hostname",
    port="-p --port",
    name="-t --topic",
    payload="-m --message --will-message",
    also="--will-topic",
    secret="-P --password",  # noqa: S106
    scheme="-l --protocol",
    config="--config --load-options",
    stop="--help --version",
    value=(
        "-q --qos -i --client-id -I --client-id-prefix -u --username -k --keepalive -V --mqtt-version -f --format"
        " --path --key --cert --ca -c --count --interval -im --message-interval -L --limit -se -rm --will-qos"
        " -rp --reconnect-period --file-read --file-save --payload-size -sc --scenario"
    ),
    flag="-r --retain --no-clean -s --stdin -M --multiline --insecure --debug -v --verbose -d --dup",
)
MQTT_CLI: Final = options(
    host="-h --host --hostname",
    port="-p --port",
    name="-t --topic",
    payload="-m --message --payload -Wm --willMessage --will-payload -wp",
    also="-Wt --willTopic --will-topic -wt",
    secret="-P -pw --password",  # noqa: S106
    scheme="-C --protocol",
    config="--pw:file",
    tls="-s --secure",
    stop="--help --version",
    value=(
        "-u --user --username -i --identifier --client-id -q --qos -V --mqttVersion --mqtt-version -k --keepAlive"
        " --keepalive --cert --key --ca --cafile --capath -ip --identifierPrefix -m:file -of -Wq -We -ws:path -se -up"
    ),
    flag="-r --retain -c --cleanStart --no-cleanStart -d --debug -v --verbose -l -n -ws -b64 --base64 -T -J -oc",
)
EMQTT_BENCH: Final = options(
    host="-h --host",
    port="-p --port",
    name="-t --topic",
    payload="-m --message",
    secret="-P --password",  # noqa: S106
    tls="-S --ssl",
    stop="--help",
    value=(
        "-V --version -c --count -R --connrate -n --startnumber -i --interval -I --interval_of_msg -s --size -q --qos"
        " -u --username -k --keepalive -C --clean -x --session-expiry -L --limit --ifaddr --prefix --certfile --keyfile"
        " --cacertfile -w --wait-before-publishing -F --inflight"
    ),
    flag="--ws --quic -r --retain -l --lowmem",
)
PAHO_C: Final = options(
    host="-h --host",
    port="-p --port",
    url="-c --connection",
    name="-t --topic",
    payload="-m --message --will-payload",
    also="--will-topic",
    secret="-P --password --keypass --psk",  # noqa: S106
    stop="--help",
    value=(
        "-i --clientid -q --qos -u --username -V --MQTT-version -k --keepalive --delimiter --maxdatalen -f --filename"
        " --trace --will-qos --cafile --capath --cert --key --ciphers --psk-identity --message-expiry --http-proxy"
        " --https-proxy -C --user-property"
    ),
    flag="--quiet --verbose -r --retained -R --no-retained -n --null-message --will-retain --insecure -s --stdin",
)
AMQTT: Final = options(
    url="--url",
    name="-t --topic",
    payload="-m --will-message",
    also="--will-topic",
    config="-c",
    stop="-h --help --version",
    value="-i -q --qos -f -k --keep-alive --ca-file --ca-path --ca-data --will-qos -n",
    flag="-d -r --retain -l -s --clean-session --will-retain",
)
STOMP: Final = options(
    host="-H --host",
    port="-P --port",
    name="-L --listen",
    secret="-W --password",  # noqa: S106
    stop="--help -h --version",
    value="-U --user -F --file -S --protocol --heartbeats --ssl-key-file --ssl-cert-file --ssl-ca-file -Q",
    flag="-V --verbose --ssl -s -E",
)
SENDXMPP: Final = options(
    address="-j --jserver",
    jid="-u --username",
    secret="-p --password",  # noqa: S106
    config="-f --file",
    stop="--help --version",
    value="-m --message -s --subject -r --resource -o --component --http-upload --ox-passphrase --timeout --oob-file",
    flag=(
        "-t --tls -e --tls-ssl -n --notls -d --debug -i --interactive -l --listen -c --chatroom -a -v --verbose"
        " --raw --headline --no-tls-verify -x --xml"
    ),
)
CURL: Final = options(
    url="--url",
    payload=(
        "-d --data --data-ascii --data-binary --data-raw --data-urlencode --json -F --form --form-string --url-query"
    ),
    secret="-u --user -U --proxy-user",  # noqa: S106
    scheme="--proto-default",
    config="-K --config",
    stop="-h --help -V --version",
    flag=(
        "-0 -1 -2 -3 -4 -6 -a -B -f -g -G -i -I -j -J -k -l -L -M -n -N -O -p -q -R -s -S -v -Z -#"
        " --anyauth --append --basic --cert-status --compressed-ssh --create-dirs --crlf --digest --disable"
        " --disable-eprt --disable-epsv --disallow-username-in-url --doh-cert-status --doh-insecure --fail-early"
        " --fail-with-body --false-start --form-escape --ftp-create-dirs --ftp-pasv --ftp-pret --ftp-skip-pasv-ip"
        " --ftp-ssl-ccc --ftp-ssl-control --globoff --haproxy-protocol --http0.9 --http1.0 --http1.1 --http2"
        " --http2-prior-knowledge --http3 --http3-only --ignore-content-length --ipv4 --ipv6 --junk-session-cookies"
        " --list-only --location-trusted --mail-rcpt-allowfails --manual --metalink --negotiate --netrc"
        " --netrc-optional --next --no-alpn --no-clobber --no-keepalive --no-npn --no-progress-meter --no-sessionid"
        " --ntlm --ntlm-wb --parallel --parallel-immediate --path-as-is --post301 --post302 --post303"
        " --progress-bar --proxy-anyauth --proxy-basic --proxy-digest --proxy-insecure --proxy-negotiate --proxy-ntlm"
        " --proxy-ssl-allow-beast --proxy-ssl-auto-client-cert --proxy-tlsv1 --proxytunnel --raw --remote-header-name"
        " --remote-name --remote-name-all --remote-time --remove-on-error --retry-all-errors --retry-connrefused"
        " --sasl-ir --socks5-basic --socks5-gssapi --socks5-gssapi-nec --ssl --ssl-allow-beast --ssl-auto-client-cert"
        " --ssl-no-revoke --ssl-reqd --ssl-revoke-best-effort --sslv2 --sslv3 --styled-output"
        " --suppress-connect-headers --tcp-fastopen --tcp-nodelay --tftp-no-options --tlsv1 --tlsv1.0 --tlsv1.1"
        " --tlsv1.2 --tlsv1.3 --tr-encoding --trace-time --use-ascii --xattr"
        " --silent --verbose --insecure --location --fail --include --head --get --show-error --no-buffer --compressed"
    ),
    value=(
        "-E -C -b -c -D -P -H -m -o -Q -r -e -X -Y -y -t -z -T -A -w -x"
        " --abstract-unix-socket --alt-svc --aws-sigv4 --cacert --capath --cert --cert-type --ciphers --connect-timeout"
        " --connect-to --continue-at --cookie --cookie-jar --create-file-mode --crlfile --curves --delegation"
        " --dns-interface --dns-servers --doh-url --dump-header --engine --expect100-timeout --ftp-port --header"
        " --interface --keepalive-time --key --key-type --limit-rate --local-port --max-filesize --max-redirs"
        " --max-time --netrc-file --noproxy --oauth2-bearer --output --output-dir --pass --pinnedpubkey --proto"
        " --proto-redir --proxy --proxy-header --proxy1.0 --pubkey --quote --range --rate --referer --request"
        " --request-target --resolve --retry --retry-delay --retry-max-time --socks4 --socks4a --socks5"
        " --socks5-hostname --speed-limit --speed-time --stderr --telnet-option --time-cond --tls-max --tls13-ciphers"
        " --dns-ipv4-addr --dns-ipv6-addr --egd-file --etag-compare --etag-save --ftp-account --ftp-alternative-to-user"
        " --ftp-method --ftp-ssl-ccc-mode --happy-eyeballs-timeout-ms --hostpubmd5 --hostpubsha256 --hsts --krb"
        " --libcurl --login-options --mail-auth --mail-from --mail-rcpt --parallel-max --proxy-cacert --proxy-capath"
        " --proxy-cert --proxy-cert-type --proxy-ciphers --proxy-crlfile --proxy-key --proxy-key-type --proxy-pass"
        " --proxy-pinnedpubkey --proxy-service-name --proxy-tls13-ciphers --proxy-tlsauthtype --proxy-tlspassword"
        " --proxy-tlsuser --random-file --sasl-authzid --service-name --socks5-gssapi-service --tftp-blksize"
        " --tlsauthtype --tlspassword --tlsuser"
        " --preproxy --trace --trace-ascii --unix-socket --upload-file --user-agent --write-out"
    ),
)
OPENSSL: Final = options(
    host="-host",
    port="-port",
    address="-connect",
    socket="-unix",
    listen="-dtls -dtls1 -dtls1_2",
    stop="-help",
    value=(
        "-starttls -xmpphost -alpn -engine -ssl_client_engine -ssl_config -ctlogfile -bind -proxy -proxy_user"
        " -proxy_pass -maxfraglen -max_send_frag -split_send_frag -max_pipelines -read_buf -cert -certform -cert_chain"
        " -key -keyform -pass -verify -nameopt -CApath -CAfile -CAstore -requestCAfile -dane_tlsa_domain"
        " -dane_tlsa_rrdata -psk_identity -psk -psk_session -name -sess_out -sess_in -msgfile -keymatexport"
        " -keymatexportlen -keylogfile -servername -serverinfo -mtu -nextprotoneg -early_data -use_srtp -srpuser"
        " -srppass -srp_strength -rand -writerand -sigalgs -client_sigalgs -groups -curves -named_curve -cipher"
        " -ciphersuites -min_protocol -max_protocol -record_padding -policy -purpose -verify_name -verify_depth"
        " -auth_level -attime -verify_hostname -verify_email -verify_ip -CRL -CRLform -chainCAfile -chainCApath"
        " -chainCAstore -verifyCAfile -verifyCApath -verifyCAstore -xkey -xcert -xchain -xcertform -xkeyform -provider"
        " -provider-path -propquery"
    ),
)
LISTENS: Final = options(listen="-l -u -U")
NC_OPENBSD: Final = (
    _getopt("46bCDdFhI:i:klM:m:NnO:P:p:q:rSs:T:tUuV:vW:w:X:x:Zz") | _getopt("c:e:g:G:o:") | LISTENS | options(stop="-h")
)
"""With those of other netcats, which this one refuses: a plain `nc` may be any."""
NC_TRADITIONAL: Final = _getopt("46abCc:e:g:G:hi:klno:p:q:rs:tT:uvw:xz") | LISTENS | options(stop="-h")
NC_BUSYBOX: Final = _getopt("klLnp:i:w:ve:f:zuso:46") | LISTENS
NCAT: Final = _getopt("46UCc:e:g:G:i:km:hp:d:lo:x:ts:uvw:nz") | options(
    flag=(
        "--crlf --keep-open --nodns --telnet --verbose --append-output --send-only --recv-only --no-shutdown"
        " --broker --chat --ssl --ssl-verify"
    ),
    listen="-l --listen -u --udp --sctp -U --unixsock --vsock",
    stop="-h --help --version",
    value=(
        "--sh-exec --exec --lua-exec --max-conns --delay --output --hex-dump --idle-timeout --source-port --source"
        " --wait --allow --allowfile --deny --denyfile --proxy --proxy-type --proxy-auth --proxy-dns --ssl-cert"
        " --ssl-key --ssl-trustfile --ssl-ciphers --ssl-servername --ssl-alpn"
    ),
)
TELNET: Final = _getopt("468EFKLX:ab:cde:fk:l:n:rS:x")
