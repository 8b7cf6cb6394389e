"""Varnish, which speaks no TLS and is asked for what it stores only."""
from wants import CACHE_MIB


class Varnish:
    name, reload_signal = "varnish", None
    program, version_flag = "varnishd", "-V"

    def can(self, wants):
        return wants.cache

    def command(self, _wants, place):
        address, _, port = place.backends[0].partition(":")
        conf = place.write("varnish.vcl", f'vcl 4.1;\nbackend app {{ .host = "{address}"; .port = "{port}"; }}\n')
        settings = ("thread_pools=1", "thread_pool_min=64")
        return ["varnishd", "-F", "-j", "none", "-a", f"127.0.0.1:{place.plain}", "-f", conf, "-n", f"{place.folder}/varnish",
                "-s", f"malloc,{CACHE_MIB}m", *(word for setting in settings for word in ("-p", setting))]
