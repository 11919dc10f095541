// What a server in Go sees of a body: one line of base64 in, one line of what each way of reading sees out.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
)

type request struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      any             `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type params struct {
	Name      string          `json:"name"`
	URI       string          `json:"uri"`
	Arguments json.RawMessage `json:"arguments"`
	Meta      map[string]any  `json:"_meta"`
}

func canonical(v any, b *bytes.Buffer) {
	text := func(s string) {
		b.WriteByte('s')
		b.WriteString(strconv.Itoa(len(s)))
		b.WriteByte(':')
		b.WriteString(s)
	}
	switch v := v.(type) {
	case nil:
		b.WriteByte('n')
	case bool:
		if v {
			b.WriteByte('t')
		} else {
			b.WriteByte('f')
		}
	case float64:
		if v == 0 {
			v = 0
		}
		var bits [8]byte
		binary.BigEndian.PutUint64(bits[:], math.Float64bits(math.Abs(v)))
		if v < 0 {
			bits[0] |= 0x80
		}
		b.WriteByte('d')
		b.WriteString(hex.EncodeToString(bits[:]))
	case string:
		text(v)
	case []any:
		b.WriteByte('[')
		for _, e := range v {
			canonical(e, b)
		}
		b.WriteByte(']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		b.WriteByte('{')
		for _, k := range keys {
			text(k)
			canonical(v[k], b)
		}
		b.WriteByte('}')
	}
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		return "s" + base64.StdEncoding.EncodeToString([]byte(v))
	}
	return "?"
}

func digest(v any) string {
	if v == nil {
		return "-"
	}
	var b bytes.Buffer
	canonical(v, &b)
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}

func asMap(body []byte) string {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return "x"
	}
	m, ok := v.(map[string]any)
	if !ok {
		return "x"
	}
	p, _ := m["params"].(map[string]any)
	return strings.Join([]string{text(m["method"]), text(p["name"]), text(p["uri"]), digest(p["arguments"])}, "|")
}

// As the SDK reads: fields without regard to case, parameters and arguments kept raw until the method is known.
func asStruct(decode func(any) error) string {
	var r request
	if decode(&r) != nil {
		return "x"
	}
	var p params
	if len(r.Params) > 0 && json.Unmarshal(r.Params, &p) != nil {
		return "x"
	}
	var a any
	if len(p.Arguments) > 0 && json.Unmarshal(p.Arguments, &a) != nil {
		return "x"
	}
	return strings.Join([]string{text(r.Method), text(p.Name), text(p.URI), digest(a)}, "|")
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		body, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil {
			os.Exit(1)
		}
		whole := asStruct(func(v any) error { return json.Unmarshal(body, v) })
		first := asStruct(func(v any) error { return json.NewDecoder(bytes.NewReader(body)).Decode(v) })
		out.WriteString(asMap(body) + "\t" + whole + "\t" + first + "\n")
		if in.Buffered() == 0 {
			out.Flush()
		}
	}
}
