#!/bin/sh
# report.sh - make RESULTS/results.md and the charts out of RESULTS/results.json,
# again if you like.
#
#   bench/report.sh RESULTS
#
# Needs jq, and gnuplot for the charts; says what it leaves out without them.
set -eu
LC_ALL=C
export LC_ALL

case ${1:-} in
'' | -*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
cd "$1"
if ! command -v jq >/dev/null 2>&1; then
	echo "no table and no charts: jq is not installed"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ------------------------------------------------------------------------- table

# Three digits that count, but all of a large number.
# shellcheck disable=SC2016 # jq's variables, not the shell's
short='def short:
	if . == 0 then "0"
	elif fabs >= 100 then round | tostring
	else (fabs | log10 | floor) as $e | (pow(10; 2 - $e)) as $k |
		(. * $k | round / $k | tostring)
	end;
'

table() {
	# shellcheck disable=SC2016
	jq -r "$short"'
	"# What the benches have found",
	"",
	(if .smoke then "**A smoke run: these figures mean nothing.**", "" else empty end),
	"| | |", "|---|---|",
	(.header | to_entries[] | "| \(.key | gsub("_"; " ")) | \(.value) |"),
	"",
	"Medians of rounds in which the contestants alternate. The ratio is ours to theirs",
	"within one round: median and quartiles. bench/README says more.",
	"",
	"| question | ours | theirs | ratio | mark | |",
	"|---|---|---|---|---|---|",
	(.smoke as $smoke | .answers[] | . as $q | .contestants[0] as $ours |
	if (.contestants | length) == 1 then
		"| \(.question) | \($ours.figure.median | short) \(.unit) | | | | |"
	else
		.contestants[1:][] |
		"| \($q.question) | \($ours.name): \($ours.figure.median | short) \($q.unit) " +
		"| \(.name): \(.figure.median | short) \($q.unit) " +
		"| **\(.ratio.median | short)** (\(.ratio.q1 | short) to \(.ratio.q3 | short)) " +
		(if .mark then
			"| \(if $q.is_time then "≤" else "≥" end) \(.mark) " +
			"| \(if $smoke then "not judged" elif .met then "met" else "**missed**" end) |"
		else "| | |" end)
	end)' results.json
}
table >results.md
echo "== $1/results.md"

if ! command -v gnuplot >/dev/null 2>&1; then
	echo "no charts: gnuplot is not installed"
	exit 0
fi

# ------------------------------------------------------------------------ charts

rm -f ./*.svg

# How many times as good as theirs, whether more or less is better: right is good.
# Columns: label, ratio, low, high, mark (0: none).
bars() {
	# shellcheck disable=SC2016
	jq -r --arg program "$1" '.answers[] | select(.program == $program) | . as $q |
	def good: if $q.is_time then 1 / . else . end;
	.contestants[1:][] | select(.ratio.q1 > 0) |
	[ "\($q.question) / \(.name)" | gsub("[\"\\\\_]"; " ") ] +
	([.ratio.median, .ratio.q1, .ratio.q3] | map(good)) +
	[ if .mark then .mark | good else 0 end ] | @tsv' results.json
}

# bar_chart PROGRAM
bar_chart() {
	bars "$1" >"$work/bars"
	rows=$(wc -l <"$work/bars")
	[ "$rows" -gt 0 ] || return 0
	height=$((rows * 26 + 110))
	gnuplot <<END
set terminal svg size 1000, $height font "sans,12" background "white"
set output "ratios-$1.svg"
set datafile separator "\t"
set label "$1: how many times as good as theirs (red: the mark)" at screen 0.5, \
	screen 1 - 25. / $height center
set logscale x
set yrange [$rows - 0.3:-0.7]
set grid xtics
set key off
set bars small
set arrow from 1, graph 0 to 1, graph 1 nohead lc "gray40"
set lmargin at screen 0.45
set tmargin at screen 1 - 45. / $height
set style fill solid 0.6
plot "$work/bars" using (1):0:(1):2:(\$0 - 0.35):(\$0 + 0.35):ytic(1) with boxxyerror lc "steelblue", \
	"" using 2:0:3:4 with xerrorbars pt 0 lc "black", \
	"" using (\$5 > 0 ? \$5 : NaN):0 with points pt "|" ps 2 lc "red"
END
	echo "== ratios-$1.svg"
}

# Questions "live WHO, 64 KiB writes": a chart for each WHO, a line for each contestant.
# Columns: who, contestant, bytes, rate.
live_rates() {
	# shellcheck disable=SC2016
	jq -r '.answers[] | . as $q | .question |
	(capture("^(?<who>live.*?),? *(?<n>[0-9.]+) *(?<u>B|bytes?|KiB|MiB) writes")? // empty) as $m |
	(($m.n | tonumber) * ({ "KiB": 1024, "MiB": 1048576 }[$m.u] // 1)) as $bytes |
	$q.contestants[] | [ $m.who, .name, $bytes, .figure.median ] | @tsv' results.json
}

# line_chart NUMBER WHO
line_chart() {
	# shellcheck disable=SC2016 # awk's
	awk -F '\t' -v who="$2" '$1 == who && !seen[$2]++ { print $2 }' "$work/live" >"$work/names"
	plots=
	while read -r name; do
		plots="$plots${plots:+, }\"<awk -F '\\\\t' '\$1 == \\\"$2\\\" && \$2 == \\\"$name\\\"' \
$work/live | sort -t '\\t' -k3n\" using 3:4 with linespoints title \"$name\""
	done <"$work/names"
	gnuplot <<END
set terminal svg size 900, 500 font "sans,12" background "white"
set output "live-$1.svg"
set datafile separator "\t"
set title "$2: rate by size of the writes" noenhanced
set logscale x 2
set xlabel "a write"
set format x "%.0b %BB"
set ylabel "MiB/s"
set yrange [0:*]
set grid
set key outside noenhanced
plot $plots
END
	echo "== live-$1.svg"
}

for program in $(jq -r '[.answers[].program] | unique[]' results.json); do
	bar_chart "$program"
done
live_rates >"$work/live"
number=0
cut -f1 "$work/live" | sort -u >"$work/who"
while read -r who; do
	number=$((number + 1))
	line_chart "$number" "$who"
done <"$work/who"
