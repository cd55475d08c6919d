# A HAMMER disk behind an NVMe controller, mounted as on DragonFly:
mount -r nvme0 /mnt
mount
ls -l /mnt
cat /mnt/docs/notes
sha256 /mnt/kinds/large
# HAMMER remembers. What the notes said at first, and a file that is gone today:
hammer history /mnt/docs/notes
cat /mnt/docs/notes@@0x0000000100008020
ls /mnt/docs /mnt/@@0x0000000100008020/docs
cat /mnt/docs/draft@@0x0000000100008020
hammer snapls /mnt
# A pseudo file system, by the link that leads to it:
cat /mnt/home/hello
# And the kernel that did it:
ps
sysctl hw.ncpu dev.nvme.0.model dev.nvme.0.completed dev.nvme.0.interrupts
# A shell on this disk: vkernel --shell. On one of yours: vkernel --nvme IMAGE. `help` lists the commands.
shutdown
