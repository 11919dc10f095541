"""What a server in Python sees of a body: one line of base64 in, one line of what each way of reading sees out."""
import base64, hashlib, json, struct, sys


def canonical(v, out):
    def text(s):
        raw = s.encode("utf-8", "surrogatepass")
        out.append(b"s%d:" % len(raw))
        out.append(raw)

    if v is None:
        out.append(b"n")
    elif v is True:
        out.append(b"t")
    elif v is False:
        out.append(b"f")
    elif isinstance(v, (int, float)):
        try:
            number = float(v)
        except OverflowError:
            number = float("inf") if v > 0 else float("-inf")
        out.append(b"d" + struct.pack(">d", number + 0.0 if number != 0 else 0.0).hex().encode())
    elif isinstance(v, str):
        text(v)
    elif isinstance(v, list):
        out.append(b"[")
        for e in v:
            canonical(e, out)
        out.append(b"]")
    else:
        out.append(b"{")
        for k in sorted(v, key=lambda k: k.encode("utf-8", "surrogatepass")):
            text(k)
            canonical(v[k], out)
        out.append(b"}")


def text(v):
    if v is None or v == "":
        return "-"
    if isinstance(v, str):
        return "s" + base64.b64encode(v.encode("utf-8", "surrogatepass")).decode()
    return "?"


def digest(v):
    if v is None:
        return "-"
    out = []
    canonical(v, out)
    return hashlib.sha256(b"".join(out)).hexdigest()


def seen(read):
    try:
        v = read()
        if not isinstance(v, dict):
            return "x"
        p = v.get("params")
        if not isinstance(p, dict):
            p = {}
        return "|".join([text(v.get("method")), text(p.get("name")), text(p.get("uri")), digest(p.get("arguments"))])
    except (ValueError, RecursionError):
        return "x"


decoder = json.JSONDecoder()
for line in sys.stdin.buffer:
    body = base64.b64decode(line)
    whole = seen(lambda: json.loads(body))
    lenient = seen(lambda: json.loads(body.decode("utf-8-sig", "replace"), strict=False))
    first = seen(lambda: decoder.raw_decode(body.decode("utf-8", "replace").lstrip())[0])
    sys.stdout.write(whole + "\t" + lenient + "\t" + first + "\n")
    sys.stdout.flush()
