# A HAMMER disk behind an NVMe controller. It is mounted as on DragonFly:
mount -r nvme0 /mnt
ls -l /mnt /mnt/kinds
cat /mnt/docs/notes
sha256 /mnt/kinds/large

# HAMMER remembers. The same file two transactions ago, and a name that is gone today:
cat /mnt/docs/notes@@0x0000000100008020
ls /mnt/@@0x0000000100008020/docs
! cat /mnt/docs/draft

# A pseudo file system, through its link:
cat /mnt/home/hello

# The kernel itself:
ps
sysctl hw
shutdown
