// The real-time clock. No interrupt: it has no alarm.
DefinitionBlock ("", "SSDT", 2, "VMM", "VMMRTC", 1)
{
    Scope (\_SB)
    {
        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_UID, Zero)
            Name (_STA, 0x0F)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
            })
        }
    }
}
