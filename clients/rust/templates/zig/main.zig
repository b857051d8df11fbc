//! Adds up the numbers in its arguments and on its standard input.
//!
//! It calls WASI itself: Zig's own interfaces for files and arguments differ from version to version.

const std = @import("std");
const wasi = std.os.wasi;

/// For the arguments and the input.
var memory: [1 << 20]u8 = undefined;

pub fn main() u8 {
    var fixed = std.heap.FixedBufferAllocator.init(&memory);
    const total = sum(fixed.allocator()) catch |problem| {
        write(2, @errorName(problem));
        write(2, "\n");
        return 1;
    };
    var line: [32]u8 = undefined;
    write(1, std.fmt.bufPrint(&line, "{d}\n", .{total}) catch unreachable);
    return 0;
}

fn sum(allocator: std.mem.Allocator) !i64 {
    var total: i64 = 0;
    for ((try arguments(allocator))[1..]) |argument| {
        total = try std.math.add(i64, total, try std.fmt.parseInt(i64, std.mem.span(argument), 10));
    }
    var words = std.mem.tokenizeAny(u8, try input(allocator), " \t\r\n");
    while (words.next()) |word| {
        total = try std.math.add(i64, total, try std.fmt.parseInt(i64, word, 10));
    }
    return total;
}

fn arguments(allocator: std.mem.Allocator) ![][*:0]u8 {
    var count: usize = 0;
    var bytes: usize = 0;
    if (wasi.args_sizes_get(&count, &bytes) != .SUCCESS) return error.NoArguments;
    const list = try allocator.alloc([*:0]u8, count);
    const text = try allocator.alloc(u8, bytes);
    if (wasi.args_get(list.ptr, text.ptr) != .SUCCESS) return error.NoArguments;
    return list;
}

fn input(allocator: std.mem.Allocator) ![]u8 {
    const buffer = try allocator.alloc(u8, memory.len / 2);
    var length: usize = 0;
    while (length < buffer.len) {
        const rest = buffer[length..];
        const vector = [_]std.posix.iovec{.{ .base = rest.ptr, .len = rest.len }};
        var read: usize = 0;
        if (wasi.fd_read(0, &vector, vector.len, &read) != .SUCCESS) return error.NoInput;
        if (read == 0) return buffer[0..length];
        length += read;
    }
    return error.TooMuchInput;
}

fn write(descriptor: wasi.fd_t, bytes: []const u8) void {
    const vector = [_]std.posix.iovec_const{.{ .base = bytes.ptr, .len = bytes.len }};
    var written: usize = 0;
    _ = wasi.fd_write(descriptor, &vector, vector.len, &written);
}
