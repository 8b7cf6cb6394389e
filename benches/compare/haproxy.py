"""HAProxy with one thread; what it is to look up in long lists is in maps."""
import hashlib

from ground import USR2
from wants import CACHE_MIB, GZIP_TYPES, KEY


class Haproxy:
    name, reload_signal = "haproxy", USR2
    program, version_flag = "haproxy", "-v"

    def can(self, _wants):
        return True

    def command(self, wants, place):
        conf = place.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
  timeout connect 1s
  timeout http-keep-alive 600s
  option forwardfor
{"  log stdout format raw local0" if wants.log else ""}
{"  option httplog" if wants.log else ""}
{self.store(wants)}
frontend front
  bind 127.0.0.1:{place.plain}
  bind 127.0.0.1:{place.secure} ssl crt {place.both} ssl-min-ver TLSv1.3 alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
{self.rules(wants, place)}
backend app
  http-reuse always
  balance {"leastconn" if wants.least_connections else "roundrobin"}
{self.servers(wants, place)}
""")
        return ["haproxy", "-f", conf, "-W" if wants.reloads else "-db"]

    def store(self, wants):
        if wants.cache:
            # As large as what is asked for; it takes no more than half of its room for one object.
            return f"cache small\n  total-max-size {CACHE_MIB}\n  max-object-size {2 << 20}\n  max-age 3600"
        return "backend clients\n  stick-table type ip size 200k expire 10s store http_req_rate(1s)" if wants.guarded else ""

    def rules(self, wants, place):
        lines = []
        if wants.cache:
            lines += ["filter cache small", "http-request cache-use small", "http-response cache-store small"]
        if wants.gzip:
            lines += ["compression algo gzip", f"compression type {' '.join(GZIP_TYPES)}"]
        if wants.guarded:
            keys = place.write("keys", hashlib.sha256(KEY.encode()).hexdigest() + "\n")
            lines += [f"http-request deny deny_status 401 unless {{ req.hdr(X-API-Key),sha2(256),hex,lower -f {keys} }}",
                      "http-request track-sc0 src table clients",
                      "http-request deny deny_status 429 if { sc_http_req_rate(0,clients) gt 1000000 }"]
        if wants.reloads:
            lines.append(f"http-response set-header X-Turn {place.turn}")
        if wants.hosts:
            hosts = place.write("hosts.map", "".join(f"host{n}.example.com app\n" for n in range(wants.hosts)))
            lines.append(f"use_backend %[req.hdr(host),lower,map({hosts},none)] if {{ path_beg /v1/ }}")
        else:
            lines.append("default_backend app")
        return "\n".join(f"  {line}" for line in lines)

    def servers(self, wants, place):
        more = (" check" if wants.watchful else "") + (" ssl verify none" if wants.origin == "tls" else "")
        return "\n".join(f"  server s{n} {backend}{more}" for n, backend in enumerate(place.backends))
