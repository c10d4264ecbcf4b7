"""Says that it lives, as sd_notify(3) and sd_watchdog_enabled(3) have it: watchdog.py SOCKET

GET /mute: it serves on, and says no more. GET /freeze: the answer is the last thing that it does at all.
"""

import http.server
import os
import socket
import socketserver
import sys
import threading
import time

silent = threading.Event()


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def pet(interval):
    while not silent.wait(interval):
        notify("WATCHDOG=1")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path in ("/mute", "/freeze"):
            silent.set()
        answer = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.server.is_frozen |= self.path == "/freeze"

    def address_string(self):
        return "-"


class Server(socketserver.UnixStreamServer):
    is_frozen = False

    def service_actions(self):
        if self.is_frozen:
            time.sleep(3600)


if int(os.environ["WATCHDOG_PID"]) != os.getpid():
    sys.exit("the watchdog is another process's")
server = Server(sys.argv[1], Handler)
threading.Thread(target=pet, args=(int(os.environ["WATCHDOG_USEC"]) / 3e6,), daemon=True).start()
notify("READY=1")
server.serve_forever(poll_interval=0.05)
