// CBOR (RFC 8949), as far as envelopes need it: integers, byte strings, texts, lists, maps, null and booleans.

const SELF_DESCRIBED = Uint8Array.of(0xd9, 0xd9, 0xf7);

const UNSIGNED = 0, NEGATIVE = 1, BYTES = 2, TEXT = 3, LIST = 4, MAP = 5, TAG = 6;

// How deep an answer's maps and lists may go.
const MAX_DEPTH = 16;

/** The bytes of a value, behind the tag that says what it is. */
export function encode(value) {
  const parts = [SELF_DESCRIBED];
  write(parts, value);
  const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function write(parts, value) {
  if (Number.isSafeInteger(value)) {
    parts.push(value < 0 ? head(NEGATIVE, -1 - value) : head(UNSIGNED, value));
  } else if (typeof value === "string") {
    const text = new TextEncoder().encode(value);
    parts.push(head(TEXT, text.length), text);
  } else if (value instanceof Uint8Array) {
    parts.push(head(BYTES, value.length), value);
  } else if (Array.isArray(value)) {
    parts.push(head(LIST, value.length));
    for (const item of value) write(parts, item);
  } else if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    parts.push(head(MAP, entries.length));
    for (const [name, item] of entries) {
      write(parts, name);
      write(parts, item);
    }
  } else {
    throw new TypeError(`expected an integer, text, bytes, a list or an object, got ${value}`);
  }
}

function head(major, value) {
  const size = value < 24 ? 0 : value < 0x100 ? 1 : value < 0x10000 ? 2 : value < 0x100000000 ? 4 : 8;
  const bytes = new Uint8Array(1 + size);
  const view = new DataView(bytes.buffer);
  bytes[0] = (major << 5) | (size === 0 ? value : { 1: 24, 2: 25, 4: 26, 8: 27 }[size]);
  if (size === 1) view.setUint8(1, value);
  if (size === 2) view.setUint16(1, value);
  if (size === 4) view.setUint32(1, value);
  if (size === 8) view.setBigUint64(1, BigInt(value));
  return bytes;
}

/** The value in these bytes; throws where they are no self-described CBOR, or end too early. */
export function decode(bytes) {
  if (bytes.length < 3 || SELF_DESCRIBED.some((byte, at) => bytes[at] !== byte)) throw new RangeError("not CBOR");
  const reader = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), at: 3 };
  const value = read(reader, MAX_DEPTH);
  if (reader.at !== bytes.length) throw new RangeError("bytes behind the end");
  return value;
}

function read(reader, depth) {
  if (depth === 0) throw new RangeError("too deep");
  const first = reader.view.getUint8(reader.at++);
  const [major, value] = [first >> 5, length(reader, first & 31)];
  switch (major) {
    case UNSIGNED:
      return value;
    case NEGATIVE:
      return -1 - value;
    case BYTES:
      return take(reader, value).slice();
    case TEXT:
      return new TextDecoder().decode(take(reader, value));
    case LIST: {
      const items = [];
      // Each item has a byte at least: a wrong count ends with the bytes.
      for (let i = 0; i < value; i++) items.push(read(reader, depth - 1));
      return items;
    }
    case MAP: {
      const map = {};
      for (let i = 0; i < value; i++) {
        const name = read(reader, depth - 1);
        map[name] = read(reader, depth - 1);
      }
      return map;
    }
    case TAG:
      return read(reader, depth - 1);
    default:
      return { 20: false, 21: true }[first & 31] ?? null;
  }
}

function length(reader, info) {
  if (info < 24) return info;
  const { view, at } = reader;
  const size = { 24: 1, 25: 2, 26: 4, 27: 8 }[info];
  // An item without a length is none that a gateway sends.
  if (size === undefined) throw new RangeError("an item without a length");
  reader.at += size;
  if (size === 1) return view.getUint8(at);
  if (size === 2) return view.getUint16(at);
  return size === 4 ? view.getUint32(at) : Number(view.getBigUint64(at));
}

function take(reader, size) {
  const end = reader.at + size;
  if (end > reader.bytes.length) throw new RangeError("too short");
  const bytes = reader.bytes.subarray(reader.at, end);
  reader.at = end;
  return bytes;
}
