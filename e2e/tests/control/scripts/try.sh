# As try.py, where there is only bash: the node itself.
nonce=$1
shift
one='
IFS="|" read -r protocol address port <<<"$2"
exec 3<>"/dev/$protocol/$address/$port" || exit
printf "%s %s\n" "$1" "$2" >&3
read -r -N 1 -u 3 && echo "$2"
'
for target; do
  timeout 3 bash -c "$one" one "$nonce" "$target" 2>/dev/null &
done
wait
