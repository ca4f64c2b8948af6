// A line over time. Gaps stay gaps, the colours are the theme's, and the figures are in a table beside it for those who do not see it.
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Series {
  label: string;
  values: (number | null)[];
  dashed?: boolean;
}

const HEIGHT = 200;
const MS_PER_SECOND = 1_000;

export function Chart({ label, times, series, max, format }: { label: string; times: string[]; series: Series[]; max?: number; format: (value: number) => string }) {
  const box = useRef<HTMLDivElement>(null);
  const text = JSON.stringify({ times, series });
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const style = getComputedStyle(element);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--border"), width: 1 }, ticks: { show: false }, font: `12px ${colour("--sans")}` };
    const data = JSON.parse(text) as { times: string[]; series: Series[] };
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => (max === undefined ? [Math.max(0, low * 0.9), high === low ? high + 1 : high * 1.1] : [0, max]) } },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * MS_PER_SECOND), "Etc/UTC"),
        axes: [{ ...axis, values: TIMES }, { ...axis, size: 64, values: (_, ticks) => ticks.map(format) }],
        series: [{}, ...data.series.map((one) => ({ label: one.label, stroke: colour("--accent"), width: 1.5, spanGaps: false, points: { show: one.values.length < MOST_DOTS }, ...(one.dashed === true ? { dash: [4, 4] } : {}) }))],
      },
      [data.times.map((at) => Date.parse(at) / MS_PER_SECOND), ...data.series.map((one) => one.values)],
      element,
    );
    const resized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      plot.destroy();
    };
  }, [text, max, format]);
  return <div ref={box} className="chart" role="img" aria-label={label} />;
}

const MOST_DOTS = 60;

// How ticks read, by the seconds between them, and what is added where a day begins: uPlot's [tick, text, year, month, day, hour, minute, second, how].
const TIMES: uPlot.Axis.Values = [
  [86_400, "{D} {MMM}", null, null, null, null, null, null, 1],
  [1, "{HH}:{mm}", null, null, "\n{D} {MMM}", null, null, null, 1],
];
