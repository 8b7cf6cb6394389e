"""Envoy with one worker and a static configuration."""
import json

from wants import GZIP_LEVEL, GZIP_TYPES, KEY

TYPES = "type.googleapis.com/envoy.extensions."
MANY = 1_000_000


def typed(name, **fields):
    return {"@type": TYPES + name, **fields}


def extension(name, kind, **fields):
    return {"name": name, "typed_config": typed(kind, **fields)}


class Envoy:
    name, reload_signal = "envoy", None
    # Where installing.py has found it.
    program, version_flag = "envoy", "--version"

    def can(self, wants):
        # Its cache is not yet for production, says its manual; and it takes changes from a server of configurations.
        return not wants.cache and not wants.reloads

    def command(self, wants, place):
        secure = {"name": "tls", "typed_config": typed(
            "transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={"alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                                "tls_certificates": [{"certificate_chain": {"filename": place.cert},
                                                      "private_key": {"filename": place.key}}]})}
        listeners = [self.listener("plain", place.plain, wants, place), self.listener("secure", place.secure, wants, place)]
        listeners[1]["filter_chains"][0]["transport_socket"] = secure
        conf = {"static_resources": {"listeners": listeners, "clusters": [self.cluster(wants, place)]},
                # It refuses connections by itself without a bound that is said.
                "overload_manager": {"resource_monitors": [extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=50_000)]}}
        return [self.program, "-c", place.write("envoy.json", json.dumps(conf)), "--concurrency", "1", "--log-level", "error",
                "--disable-hot-restart"]

    def listener(self, name, port, wants, place):
        manager = {
            "stat_prefix": name, "use_remote_address": True, "generate_request_id": False, "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}], "route_config": {"virtual_hosts": self.hosts(wants)},
            "http_filters": [*self.filters(wants), extension("envoy.filters.http.router", "filters.http.router.v3.Router")]}
        if wants.log:
            manager["access_log"] = [extension("log", "access_loggers.file.v3.FileAccessLog", path=place.path("access.log"))]
        hcm = extension("http", "filters.network.http_connection_manager.v3.HttpConnectionManager", **manager)
        return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [hcm]}]}

    def hosts(self, wants):
        route = {"route": {"cluster": "app", "timeout": "60s"}}
        if not wants.hosts:
            return [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
        return [{"name": f"h{n}", "domains": [f"host{n}.example.com"], "routes": [{"match": {"prefix": "/v1/"}, **route}]}
                for n in range(wants.hosts)]

    def filters(self, wants):
        found = []
        if wants.guarded:
            found.append(extension("envoy.filters.http.api_key_auth", "filters.http.api_key_auth.v3.ApiKeyAuth",
                                   credentials=[{"key": KEY, "client": "bench"}], key_sources=[{"header": "X-API-Key"}]))
            # One bucket for all clients together.
            found.append(extension("envoy.filters.http.local_ratelimit", "filters.http.local_ratelimit.v3.LocalRateLimit",
                                   stat_prefix="limit", filter_enabled={"default_value": {"numerator": 100}},
                                   filter_enforced={"default_value": {"numerator": 100}},
                                   token_bucket={"max_tokens": MANY, "tokens_per_fill": MANY, "fill_interval": "1s"}))
        if wants.gzip:
            gzip = extension("gzip", "compression.gzip.compressor.v3.Gzip", compression_level=f"COMPRESSION_LEVEL_{GZIP_LEVEL}",
                             memory_level=8, window_bits=15)
            found.append(extension("envoy.filters.http.compressor", "filters.http.compressor.v3.Compressor",
                                   compressor_library=gzip, response_direction_config={
                                       "common_config": {"content_type": list(GZIP_TYPES), "min_content_length": 1024}}))
        return found

    def cluster(self, wants, place):
        ends = [backend.rsplit(":", 1) for backend in place.backends]
        cluster = {
            "name": "app", "type": "STATIC", "connect_timeout": "1s",
            "lb_policy": "LEAST_REQUEST" if wants.least_connections else "ROUND_ROBIN",
            "circuit_breakers": {"thresholds": [{"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}]},
            "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
                for host, port in ends]}]}}
        if wants.watchful:
            cluster["health_checks"] = [{"timeout": "1s", "interval": "2s", "unhealthy_threshold": 3, "healthy_threshold": 2,
                                         "tcp_health_check": {}}]
        if wants.origin == "tls":
            cluster["transport_socket"] = {"name": "tls", "typed_config": typed("transport_sockets.tls.v3.UpstreamTlsContext")}
        return cluster
