// The port by which a guest says that it has panicked.
DefinitionBlock ("", "SSDT", 2, "VMM", "VMMPANIC", 1)
{
    Scope (\_SB)
    {
        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Name (_UID, Zero)
            Name (_STA, 0x0F)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0505, 0x0505, 0x01, 0x01)
            })
        }
    }
}
