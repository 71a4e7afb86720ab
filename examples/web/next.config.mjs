/** @type {import('next').NextConfig} */
const nextConfig = {
  agentRules: false, // an agent that starts this app finds no AGENTS.md written into it
};

export default nextConfig;
