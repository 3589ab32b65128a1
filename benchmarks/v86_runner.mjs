// Boot a disk on v86 under node; bytes that the guest writes to port 0xE9 go to standard output.
// Arguments: the folder with libv86.mjs and v86.wasm, BIOS, VGA BIOS, disk. Ends at the word "Shutdown" at port 0x8900.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [build, bios, vgaBios, disk] = process.argv.slice(2);
const { V86 } = await import(pathToFileURL(path.join(build, "libv86.mjs")));

const bytes = (file) => {
    const content = fs.readFileSync(file);
    return content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength);
};

const emulator = new V86({
    wasm_path: path.join(build, "v86.wasm"),
    bios: { buffer: bytes(bios) },
    vga_bios: { buffer: bytes(vgaBios) },
    hda: { buffer: bytes(disk) },
    memory_size: 16 << 20,
    vga_memory_size: 2 << 20,
    disable_speaker: true,
    fastboot: true,
    autostart: false,
});

emulator.add_listener("emulator-loaded", () => {
    const io = emulator.v86.cpu.io;
    const text = [];
    io.register_write(0xE9, {}, (value) => {
        text.push(value);
        if (value === 10) fs.writeSync(1, Uint8Array.from(text.splice(0)));
    });
    let word = "";
    io.register_write(0x8900, {}, (value) => {
        word = (word + String.fromCharCode(value)).slice(-8);
        if (word === "Shutdown") process.exit(0);
    });
    emulator.run();
});
