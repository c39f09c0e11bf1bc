// The serial port COM1. An extended interrupt descriptor: what it says about the line holds without legacy interrupts too.
DefinitionBlock ("", "SSDT", 2, "VMM", "VMMCOM1", 1)
{
    Scope (\_SB)
    {
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, Zero)
            Name (_DDN, "COM1")
            Name (_STA, 0x0F)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 4 }
            })
        }
    }
}
