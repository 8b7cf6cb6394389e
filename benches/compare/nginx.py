"""nginx as a careful operator would set it up: keep-alive on both sides, bodies in memory, what is stored on a memory disk."""
from ground import HUP
from wants import CACHE_MIB, GZIP_LEVEL, GZIP_TYPES, KEY


class Nginx:
    name, reload_signal = "nginx", HUP
    program, version_flag = "nginx", "-v"

    def can(self, _wants):
        return True

    def command(self, wants, place):
        failing = "" if wants.watchful else " max_fails=0"
        servers = " ".join(f"server {backend}{failing};" for backend in place.backends)
        conf = place.write("nginx.conf", f"""
user root; daemon off; worker_processes 1; pid {place.folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 16000; multi_accept on; }}
http {{ access_log {place.path("access.log") if wants.log else "off"}; keepalive_requests 1000000000; keepalive_timeout 600s;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 512; sendfile on; tcp_nopush on;
  client_body_buffer_size 128k; client_max_body_size 10m; proxy_max_temp_file_size 0;
  client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy; fastcgi_temp_path {place.folder}/fastcgi;
  uwsgi_temp_path {place.folder}/uwsgi; scgi_temp_path {place.folder}/scgi;
  proxy_http_version 1.1; proxy_set_header Connection $onward; proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  map $http_upgrade $onward {{ default upgrade; '' ''; }}
  upstream app {{ {"zone app 2m; least_conn;" if wants.least_connections else ""} {servers}
    keepalive {max(256, 2 * len(place.backends))}; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  {self.around(wants, place)}
  {self.servers(wants, place)} }}""")
        return ["nginx", "-c", conf]

    def around(self, wants, place):
        parts = []
        if wants.cache:
            parts.append(f"proxy_cache_path {place.folder}/cache levels=1:2 keys_zone=c:16m max_size={CACHE_MIB}m "
                         "inactive=1h use_temp_path=off;")
        if wants.guarded:
            parts.append(f"map $http_x_api_key $known {{ default 0; {KEY} 1; }} "
                         "limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;")
        return " ".join(parts)

    def servers(self, wants, place):
        more = []
        if wants.cache:
            more.append("proxy_cache c; proxy_cache_key $scheme$http_host$request_uri;")
        if wants.gzip:
            more.append(f"gzip on; gzip_comp_level {GZIP_LEVEL}; gzip_types {' '.join(GZIP_TYPES)}; gzip_min_length 1024; "
                        "gzip_proxied any;")
        if wants.guarded:
            more.append("if ($known = 0) { return 401; } limit_req zone=clients burst=1000000 nodelay;")
        if wants.reloads:
            more.append(f'add_header X-Turn "{place.turn}";')
        scheme = "https" if wants.origin == "tls" else "http"
        pass_on = f"proxy_pass {scheme}://app; {' '.join(more)}"
        # Where it stands once, since each server that has a certificate reads it again.
        listen = (f"listen 127.0.0.1:{place.plain} backlog=4096; listen 127.0.0.1:{place.secure} ssl http2 backlog=4096; "
                  f"ssl_certificate {place.cert}; ssl_certificate_key {place.key}; ssl_protocols TLSv1.3;")
        if not wants.hosts:
            return f"server {{ {listen} location / {{ {pass_on} }} }}"
        again = f"listen 127.0.0.1:{place.plain};"
        return "\n".join(f"server {{ {again if n else listen} server_name host{n}.example.com; "
                         f"location /v1/ {{ {pass_on} }} }}" for n in range(wants.hosts))
